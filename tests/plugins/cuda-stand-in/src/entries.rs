//! The kernels of a preprocessed source: `extern "C" __global__ void __launch_bounds__(256) name(`.

/// A kernel's name, and what its launch bounds say.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) bounds: Option<String>,
}

const GLOBAL: &str = "__global__";
const BOUNDS: &str = "__launch_bounds__";

/// Takes the words that only CUDA knows out of `text`, and says which kernels there are.
pub(crate) fn extract(text: &str) -> (String, Vec<Entry>) {
    let mut out = String::with_capacity(text.len());
    let mut entries: Vec<Entry> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(GLOBAL) {
        let (before, after) = (&rest[..at], &rest[at + GLOBAL.len()..]);
        out.push_str(before);
        // `extern "C"` stands before it, or before the bounds that stand before it.
        let is_entry = out.trim_end().ends_with("extern \"C\"");
        // Up to the parameters: return type, bounds and name, in any order that C++ allows.
        let mut head = String::new();
        let mut bounds = None;
        let mut tail = after;
        while let Some(open) = tail.find('(') {
            let word = &tail[..open];
            if let Some(kept) = word.trim_end().strip_suffix(BOUNDS) {
                let close = closing(&tail[open..]).map_or(tail.len(), |close| open + close);
                bounds = Some(tail[open + 1..close].to_owned());
                head.push_str(kept);
                tail = tail.get(close + 1..).unwrap_or_default();
            } else {
                head.push_str(word);
                tail = &tail[open..];
                break;
            }
        }
        let name =
            head.split_whitespace().last().unwrap_or_default().trim_start_matches(['*', '&']).to_owned();
        let known = entries.iter().any(|entry| entry.name == name);
        if is_entry && !known {
            entries.push(Entry { name, bounds });
        }
        out.push_str(&head);
        rest = tail;
    }
    out.push_str(rest);
    (out, entries)
}

/// Where the parenthesis closes with which `text` begins.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    text.char_indices().find_map(|(i, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(i)
    })
}
