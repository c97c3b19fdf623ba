//! Real clients against real servers, in one binary. Test names state what is promised.

mod support;

mod architecture;
mod command_line;
mod commands;
mod course;
mod dependencies;
mod durability;
mod errors;
mod jobs;
mod models;
mod operations;
mod predictions;
mod pytorch;
mod real_data;
mod training;
mod watching;
mod weights;
