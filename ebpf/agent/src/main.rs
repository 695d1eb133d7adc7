//! Process 1 of the guest.
fn main() {}
