//! The book on plugins, followed to the letter, and the projects that it begins with.

#![cfg(test)]

mod compatibility;
mod page;
mod project;
mod reference;
mod tutorial;
