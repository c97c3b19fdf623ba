//! What `src/engine/unchecked.rs` holds.
#![allow(dead_code)]

#[path = "../../src/engine/unchecked"]
mod unchecked {
    mod pages;
    mod prefetch;
    mod team;
}
