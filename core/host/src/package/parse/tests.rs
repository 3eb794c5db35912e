//! What a sidecar may hold, and how everything else is refused.

use std::path::Path;

use super::*;

const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn text() -> String {
    format!(
        r#"manifest = 1

name = "example-fp8"
version = "1.2.0"
about = "One scale for each tile."
license = "MIT"
homepage = "https://example.org/fp8?a=b"
sdk = "0.1.0"
numerics = 1
target = "x86_64-linux-gnu"
recipes = ["tiles", "rows"]
devices = ["cpu"]

[library]
file = "libexample_fp8.so"
blake3 = "{DIGEST}"
bytes = 1234
"#
    )
}

fn parse(text: &str) -> Result<Sidecar, PackageError> {
    Sidecar::parse(text, Path::new("x/fp8flow-plugin.toml"))
}

/// The message for the sidecar above with `from` replaced by `to`.
#[track_caller]
fn refused(from: &str, to: &str) -> String {
    let text = text();
    assert!(text.contains(from), "{from}");
    parse(&text.replacen(from, to, 1)).expect_err(to).to_string()
}

#[test]
fn what_is_written_is_read_again() {
    let sidecar = parse(&text()).expect("it is whole");
    assert_eq!(sidecar.recipes, ["tiles", "rows"]);
    assert_eq!((sidecar.library.bytes, sidecar.library.blake3.to_string().as_str()), (1234, DIGEST));
    assert_eq!(parse(&sidecar.text()).expect("its own text"), sidecar);
    let strange = Sidecar { about: "\"tiles\" and \\ übergröße".into(), homepage: None, ..sidecar };
    assert_eq!(parse(&strange.text()).expect("its own text"), strange);
    let in_c = Sidecar { c_abi: Some(3), ..strange.clone() };
    assert_eq!(parse(&in_c.text()).expect("its own text"), in_c);
    let bare = Sidecar { about: String::new(), license: String::new(), ..strange };
    assert_eq!(parse(&bare.text()).expect("its own text"), bare);
}

#[test]
fn every_error_has_a_file_a_line_and_a_column() {
    for (from, to, place, words) in [
        ("license =", "licence =", "6:1", "unknown field `licence`, expected one of"),
        ("file =", "path =", "15:1", "unknown field `path`"),
        ("numerics = 1", "numerics = -1", "9:12", "invalid"),
        ("\"rows\"", "3", "11:21", "invalid type: integer `3`"),
        ("[library]", "[library", "14:9", "table"),
        ("name = \"example-fp8\"\n", "", "1:1", "missing field `name`"),
        ("bytes = 1234\n", "", "14:1", "missing field `bytes`"),
        ("numerics = 1", "numerics = 1\nnumerics = 1", "10:1", "duplicate key"),
    ] {
        let message = refused(from, to);
        let start = format!("x/fp8flow-plugin.toml:{place}: ");
        assert!(message.starts_with(&start) && message.contains(words), "{to}: {message}");
    }
}

#[test]
fn no_word_leads_out_of_the_folder_or_to_the_terminal() {
    for file in ["../x.so", "/lib/x.so", "a/x.so", ".x.so", "x.so.1", "x", ".so", "-x.so", "x\\u0000.so", ""]
    {
        let message = refused("libexample_fp8.so", file);
        assert!(message.starts_with("x/fp8flow-plugin.toml:15:8: "), "{file}: {message}");
    }
    for name in ["..", ".", "a/b", "", "a b", "-rf", ".aside-1", "übel", "x\\u001b[2J"] {
        refused("\"example-fp8\"", &format!("\"{name}\""));
        refused("\"1.2.0\"", &format!("\"{name}\""));
    }
    for (from, to) in [
        ("One scale", "One\\u001b[2J scale"),
        ("MIT", "\\n"),
        ("https://example.org/fp8", "file:///etc/passwd"),
        ("https://example.org/fp8?a=b", "https://"),
        ("https://example.org/fp8", "https://a b"),
        ("\"tiles\"", "\"a tile\""),
        ("[\"cpu\"]", "[]"),
        (DIGEST, "0123"),
    ] {
        let message = refused(from, to);
        assert!(!message.contains(char::is_control), "{message:?}");
    }
    let message = refused("name =", "\"\\u001b[2J\" =");
    assert!(message.contains("unknown field") && !message.contains('\x1b'), "{message:?}");
    refused("One scale", &"long ".repeat(1000));
    refused("[\"cpu\"]", &format!("[{}]", "\"cpu\", ".repeat(1000)));
}

#[test]
fn another_version_is_told_before_its_unknown_keys() {
    let message = refused("manifest = 1", "manifest = 2\nnew = true");
    assert!(message.contains(":1:12: manifest 2 is not known; this fp8flow knows 1"), "{message}");
    assert!(refused("manifest = 1\n", "").contains("missing field `manifest`"));
}

#[test]
fn a_file_is_bounded_and_regular() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fp8flow-plugin.toml");
    std::fs::write(&path, text()).expect("written");
    assert!(Sidecar::read(&path).is_ok());
    std::fs::write(&path, "#".repeat(70_000)).expect("written");
    assert!(Sidecar::read(&path).expect_err("large").to_string().contains("more than 65536 bytes"));
    assert!(Sidecar::read(folder.path()).expect_err("a folder").to_string().contains("not a regular file"));
    assert!(Sidecar::read(Path::new("/dev/zero")).is_err());
}
