//! Several files in one input.

/// Begins a file.
const MARK: &[u8] = b"--- ";

/// A file of an input.
#[derive(Debug, PartialEq)]
pub(crate) struct Part<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) bytes: &'a [u8],
}

/// The files of `input`; what precedes the first mark is the file `first`.
pub(crate) fn parts<'a>(first: &'static str, input: &'a [u8]) -> Vec<Part<'a>> {
    let mut parts = vec![Part { name: first.as_bytes(), bytes: b"" }];
    let (mut start, mut at) = (0, 0);
    while at < input.len() {
        let end =
            input[at..].iter().position(|&byte| byte == b'\n').map_or(input.len(), |length| at + length);
        let line = &input[at..end];
        let next = (end + 1).min(input.len());
        if let Some(name) = line.strip_prefix(MARK) {
            close(&mut parts, &input[start..at]);
            parts.push(Part { name, bytes: b"" });
            start = next;
        }
        at = next;
    }
    close(&mut parts, &input[start..]);
    parts
}

fn close<'a>(parts: &mut [Part<'a>], bytes: &'a [u8]) {
    if let Some(last) = parts.last_mut() {
        last.bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_at_the_beginning_of_a_line_begins_a_file() {
        let of = |input: &'static [u8]| {
            let parts = parts("first", input);
            parts.into_iter().map(|Part { name, bytes }| (name, bytes)).collect::<Vec<_>>()
        };
        assert_eq!(of(b""), [(&b"first"[..], &b""[..])]);
        assert_eq!(
            of(b"a\n--- x\nb --- \n--- y"),
            [(&b"first"[..], &b"a\n"[..]), (b"x", b"b --- \n"), (b"y", b"")]
        );
    }
}
