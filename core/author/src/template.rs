//! The files of a project, by language.

/// What a project is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Rust, with the SDK.
    Rust,
    /// C, with the header.
    C,
}

/// A file: its path in the project, its text, and whether the project's name is to be put into it.
pub(crate) type File = (&'static str, &'static str, bool);

/// What stands for the plugin's name in the templates.
pub(crate) const NAMES: [&str; 2] = ["my-backend", "c-tensorwise"];
/// What stands for its identifier.
pub(crate) const IDENTIFIERS: [&str; 2] = ["my_backend", "c_tensorwise"];
/// How the example in C is built where it lies, and in a project.
pub(crate) const BUILDING: [&str; 2] =
    ["-I../include tensorwise.c -o libtensorwise.so", "plugin.c -o build/libmy_backend.so"];

macro_rules! template {
    ($stored:literal => $path:literal) => {
        ($path, include_str!(concat!("../templates/", $stored)), true)
    };
}

macro_rules! sdk {
    ($stored:literal => $path:literal, $named:literal) => {
        ($path, include_str!(concat!("../../../sdk/", $stored)), $named)
    };
}

// `gitignore` without its dot: it would be at work here too.
const RUST: &[File] = &[
    template!("rust/Cargo.toml" => "Cargo.toml"),
    template!("rust/src/lib.rs" => "src/lib.rs"),
    template!("rust/src/recipe.rs" => "src/recipe.rs"),
    template!("rust/src/table.rs" => "src/table.rs"),
    template!("rust/tests/conformance.rs" => "tests/conformance.rs"),
    template!("rust/README.md" => "README.md"),
    template!("rust/gitignore" => ".gitignore"),
];

// The plugin is the SDK's example, which is tested as such.
const C: &[File] = &[
    sdk!("c/examples/tensorwise.c" => "plugin.c", true),
    sdk!("c/include/fp8flow_plugin.h" => "fp8flow_plugin.h", false),
    template!("c/Makefile" => "Makefile"),
    template!("c/README.md" => "README.md"),
    template!("c/gitignore" => ".gitignore"),
];

impl Language {
    pub(crate) fn files(self) -> &'static [File] {
        match self {
            Self::Rust => RUST,
            Self::C => C,
        }
    }

    /// Where a project's library lies once it is built, seen from the project.
    pub fn built_into(self) -> &'static str {
        match self {
            Self::Rust => "target/release",
            Self::C => "build",
        }
    }

    /// The recipe of the plugin that a project begins with.
    pub fn recipe(self) -> &'static str {
        match self {
            Self::Rust => "rows",
            Self::C => "tensorwise",
        }
    }

    /// What builds a project.
    pub fn first_command(self) -> &'static str {
        match self {
            Self::Rust => "cargo build --release",
            Self::C => "make",
        }
    }
}
