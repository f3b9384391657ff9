//! Bodies of requests: the first byte chooses the API, the second the version.

#![no_main]

#[path = "../../tests/wire/counting.rs"]
mod counting;
#[allow(dead_code, reason = "each target uses one entry")]
#[path = "../entries.rs"]
mod entries;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let ((), asked) = counting::counted(|| entries::walk_one(entries::REQUESTS, data));
    assert_eq!(asked, 0, "decoding does not allocate");
    entries::check_one(entries::REQUESTS, data);
});
