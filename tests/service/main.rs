//! Real clients against real servers, in one binary. Test names state what is promised.

mod support;

mod architecture;
mod bad_options;
mod command_line;
mod commands;
mod continuing;
mod course;
mod dependencies;
mod downloads;
mod durability;
mod errors;
mod expressions;
mod gradients;
mod jobs;
mod losses;
mod models;
mod operations;
mod options;
mod plots;
mod predictions;
mod pytorch;
mod real_data;
mod registry;
mod registry_model;
mod resuming;
mod retention;
mod training;
mod watching;
mod weights;
