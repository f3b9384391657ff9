//! Keeps the README's table of APIs equal to the table in the code. `UPDATE=1` rewrites it.

use std::fmt::Write;
use std::path::Path;

use net::api::APIS;

const BEGIN: &str = "<!-- apis -->\n";
const END: &str = "<!-- /apis -->";

fn table() -> String {
    let mut table = String::from("| key | API | versions | |\n|--:|---|---|---|\n");
    for api in APIS {
        let (min, max) = (api.advertised_min, api.version_max);
        let versions = if min == max { min.to_string() } else { format!("{min}–{max}") };
        writeln!(table, "| {} | {} | {versions} | {} |", api.key, api.name, api.about)
            .expect("a string takes it");
    }
    table
}

#[test]
fn the_readme_lists_the_apis_that_are_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).expect("there is a README");
    let (before, rest) = readme.split_once(BEGIN).expect("the table has its beginning");
    let (found, after) = rest.split_once(END).expect("the table has its end");
    let table = table();
    if std::env::var_os("UPDATE").is_some() {
        let new = format!("{before}{BEGIN}{table}{END}{after}");
        std::fs::write(&path, new).expect("the README can be written");
    } else {
        assert_eq!(found, table, "run `UPDATE=1 cargo test -p net --test readme`");
    }
}
