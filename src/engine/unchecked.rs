//! All that is `unsafe`: what the compiler cannot check, with the reason why it is sound beside it. Everywhere else it is denied.
#![allow(unsafe_code)]

pub mod pages;
pub mod prefetch;
pub mod team;
