//! What evaded text says is read.

#[test]
fn a_disguise_is_read() {
    assert!(llama_stack_safety::normalise::variants("іgnоrе").iter().any(|variant| variant.text == "ignore"));
}
