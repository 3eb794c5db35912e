//! The blocks of a page that a test can do something with.

/// A fenced block, in the order of the page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Block<'a> {
    /// ```` ```sh ````: commands, one a line.
    Commands(Vec<&'a str>),
    /// ```` ```text ````: lines that the commands before have printed, among others.
    Printed(Vec<&'a str>),
    /// ```` ```rust,file=PATH ````: what a file is to hold.
    File(&'a str, String),
}

/// The blocks of `page`; others are passed over.
pub(crate) fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match (kind, kind.split_once(",file=")) {
            ("sh", _) => blocks.push(Block::Commands(body)),
            ("text", _) => blocks.push(Block::Printed(body)),
            (_, Some((_, path))) => blocks.push(Block::File(path, body.join("\n") + "\n")),
            _ => {}
        }
    }
    blocks
}

#[test]
fn blocks_are_read_in_order() {
    let page = "a\n```sh\nls\ncd x\n```\n```text\nout\n```\n```toml\n[x]\n```\n```rust,file=src/a.rs\nfn a() {}\n```\n";
    let expected = [
        Block::Commands(vec!["ls", "cd x"]),
        Block::Printed(vec!["out"]),
        Block::File("src/a.rs", "fn a() {}\n".into()),
    ];
    assert_eq!(blocks(page), expected);
}
