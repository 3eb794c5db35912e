//! Digests: of files, and of JSON in one canonical spelling.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

/// Digest of `value` with its keys in order: equal values have equal digests however they were written.
pub fn of_json(value: &Value) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    of_bytes(text.as_bytes())
}

/// Digest of `bytes`: blake3, in hexadecimal.
pub fn of_bytes(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Size and digest of the file `path`.
pub fn of_file(path: &Path) -> io::Result<(u64, String)> {
    Ok(of_file_while(path, || true)?.unwrap_or_default())
}

/// The same; `proceed` is asked again and again, and nothing comes of it where it says no.
pub fn of_file_while(path: &Path, proceed: impl Fn() -> bool) -> io::Result<Option<(u64, String)>> {
    // A pipe would not be opened before somebody writes to it, and a device may have no end. A lock or a stored result may
    // name either.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 18];
    let mut size = 0;
    while proceed() {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some((size, hasher.finalize().to_hex().to_string()))),
            Ok(n) => {
                size += n as u64;
                hasher.update(&buffer[..n]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_keys_does_not_show() {
        let (a, b) = (
            json!({ "x": 1, "y": [{ "p": 1.5, "q": null }] }),
            json!({ "y": [{ "q": null, "p": 1.5 }], "x": 1 }),
        );
        assert_eq!(of_json(&a), of_json(&b));
        assert_ne!(of_json(&a), of_json(&json!({ "x": 1.0, "y": [{ "p": 1.5, "q": null }] })));
    }

    #[test]
    fn a_file_has_the_digest_of_its_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f");
        let bytes = vec![7; 600_000];
        std::fs::write(&path, &bytes).expect("written");
        assert_eq!(of_file(&path).expect("read"), (600_000, of_bytes(&bytes)));
        assert_eq!(of_file_while(&path, || false).expect("read"), None);
    }

    #[test]
    fn what_may_have_no_end_is_refused() {
        for path in [Path::new("/dev/zero"), Path::new("/")] {
            let error = of_file(path).expect_err("no file").to_string();
            assert!(error.contains("it is not a regular file"), "{error}");
        }
    }
}
