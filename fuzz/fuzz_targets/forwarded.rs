#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| llama_stack_fuzz_targets::run("forwarded", data));
