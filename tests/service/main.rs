//! Real clients against real servers, in one binary. Test names state what is promised.

mod support;

mod architecture;
mod backups;
mod bad_options;
mod bad_weights;
mod checkpoint_cost;
mod checks;
mod command_line;
mod commands;
mod continuing;
mod course;
mod crashes;
mod damage;
mod dependencies;
mod downloads;
mod durability;
mod errors;
mod expressions;
mod frames;
#[cfg(target_os = "linux")]
mod full_disk;
mod gradients;
mod jobs;
mod losses;
#[cfg(target_os = "linux")]
mod many_models;
#[cfg(target_os = "linux")]
mod many_watchers;
#[cfg(target_os = "linux")]
mod memory;
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
#[cfg(target_os = "linux")]
mod soak;
mod training;
mod watching;
mod weights;
