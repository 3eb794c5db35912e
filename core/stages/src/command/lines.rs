//! Lines out of pieces of bytes, none longer than a limit, whatever a program prints.

/// The beginning of a line that is not whole yet.
#[derive(Debug)]
pub(super) struct Lines {
    limit: usize,
    begun: Vec<u8>,
    /// Whether what comes is the rest of a line that was too long.
    beyond: bool,
    /// Whether a carriage return ends a line, as for whoever looks at a terminal.
    returns: bool,
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether this is only the beginning of a line, whose rest is dropped.
    pub(super) cut: bool,
}

impl Lines {
    pub(super) fn new(limit: usize, returns: bool) -> Self {
        Self { limit, begun: Vec::new(), beyond: false, returns }
    }

    /// Takes `bytes` and tells every line that ends in them.
    pub(super) fn take(&mut self, bytes: &[u8], tell: &mut dyn FnMut(Line<'_>)) {
        let returns = self.returns;
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n' || (returns && byte == b'\r')) {
            self.add(&rest[..end]);
            self.end(tell);
            rest = &rest[end + 1..];
        }
        self.add(rest);
    }

    /// Tells a last line that has no end.
    pub(super) fn finish(&mut self, tell: &mut dyn FnMut(Line<'_>)) {
        if !self.begun.is_empty() {
            self.end(tell);
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = self.limit - self.begun.len();
        self.beyond |= bytes.len() > room;
        self.begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end(&mut self, tell: &mut dyn FnMut(Line<'_>)) {
        tell(Line { bytes: &self.begun, cut: self.beyond });
        self.begun.clear();
        self.beyond = false;
    }
}

/// A line for people: without colours and other commands to a terminal, and not longer than `limit` characters.
pub(super) fn plain(bytes: &[u8], limit: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut plain = String::new();
    let mut characters = text.chars().peekable();
    let mut length = 0;
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            if characters.next_if_eq(&'[').is_some() {
                // Parameters, then one letter.
                while characters.next_if(|c| !('@'..='~').contains(c)).is_some() {}
                characters.next();
            }
            continue;
        }
        if length == limit {
            plain.push('…');
            break;
        }
        length += 1;
        plain.push(if c.is_control() { ' ' } else { c });
    }
    plain.truncate(plain.trim_end().len());
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &mut Lines, pieces: &[&[u8]]) -> Vec<(String, bool)> {
        let mut told = Vec::new();
        let mut tell =
            |line: Line<'_>| told.push((String::from_utf8_lossy(line.bytes).into_owned(), line.cut));
        for piece in pieces {
            lines.take(piece, &mut tell);
        }
        lines.finish(&mut tell);
        told
    }

    #[test]
    fn lines_are_put_together_and_long_ones_cut() {
        let pieces: [&[u8]; 4] = [b"one\ntw", b"o\n\n12345", b"678", b"90\nend"];
        let whole = |text: &str| (text.to_owned(), false);
        let cut = |text: &str| (text.to_owned(), true);
        let mut lines = Lines::new(6, false);
        assert_eq!(
            told(&mut lines, &pieces),
            [whole("one"), whole("two"), whole(""), cut("123456"), whole("end")]
        );
        assert!(lines.begun.capacity() < 64);
        assert_eq!(
            told(&mut Lines::new(9, true), &[b"10%\r20%\r\n"]),
            [whole("10%"), whole("20%"), whole("")]
        );
        assert_eq!(told(&mut Lines::new(9, false), &[b"a\rb\n"]), [whole("a\rb")]);
    }

    #[test]
    fn memory_does_not_grow_with_a_line_without_end() {
        let mut lines = Lines::new(1000, false);
        for _ in 0..10_000 {
            lines.take(&[b'x'; 1000], &mut |_| panic!("no line ends"));
        }
        assert!(lines.begun.capacity() <= 2000);
    }

    #[test]
    fn a_terminal_is_given_no_commands() {
        assert_eq!(plain(b"\x1b[1;31mred\x1b[0m and\tbell\x07 \xff  ", 80), "red and bell  \u{fffd}");
        assert_eq!(plain("äöü".as_bytes(), 2), "äö…");
        assert_eq!(plain(b"\x1b[12", 9), "");
    }
}
