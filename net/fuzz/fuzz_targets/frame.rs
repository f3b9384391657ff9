//! A whole frame: header, then the body that the header names.

#![no_main]

#[path = "../../tests/wire/counting.rs"]
mod counting;
#[allow(dead_code, reason = "each target uses one entry")]
#[path = "../entries.rs"]
mod entries;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (found, asked) = counting::counted(|| entries::walk_frame(data));
    assert_eq!(asked, 0, "decoding does not allocate");
    if let Some((entry, version, body)) = found {
        let _ = (entry.check)(body, version);
    }
});
