//! The binary as a user runs it: the same bytes whatever the machine does, and a clear word for every bad input.

#![cfg(test)]

mod c_plugins;
mod cache;
mod card;
mod changed;
mod command;
mod conformance;
mod crashing;
mod dependencies;
mod digests;
mod disk;
mod doctor;
mod environment;
mod full_disk;
mod incompatible;
mod invalid;
mod layers;
mod lock;
mod memory;
mod older_plugin;
mod points;
mod program;
mod proof;
mod replaced;
mod report;
mod reproducible;
mod storm;
mod surroundings;
mod tour;
