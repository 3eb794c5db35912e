//! The decisions on one screen: layers of one precision and one reason stand together, those that differ only in their
//! block or in the last part of their name on one line.
//!
//! ```text
//! 224 of 225 linear layers in FP8, 93.0 % of their FLOPs
//!
//! FP8    224 layers   93.0 %  rowwise: e4m3 activations, weights and gradients
//!         model.layers.{0-31}.self_attn.{q,o}_proj        64    4096 × 4096
//!         model.layers.{0-31}.self_attn.{k,v}_proj        64    1024 × 4096
//!         …
//! high     1 layer     7.0 %  its name contains `lm_head`
//!         lm_head                                          1  128256 × 4096
//! ```
//!
//! Names in it are patterns that `include` and `exclude` take.

use std::fmt::Write as _;

use fp8flow_sdk::Precision;

use super::{LayerPlan, PlannedLayer};
use crate::gain;

/// Columns that a line may have: with the indent of `plan`, 100.
const WIDTH: usize = 97;
/// Where reasons begin.
const INDENT: usize = 30;
/// Where names begin.
const NAMES: usize = 8;

/// The table.
pub(super) fn text(plan: &LayerPlan) -> String {
    let mut out = format!(
        "{} of {} linear layers in FP8, {:.1} % of their FLOPs\n",
        plan.fp8().count(),
        plan.layers.len(),
        100.0 * plan.fp8_share()
    );
    let groups = groups(plan);
    let some = groups.iter().any(|group| group.fp8);
    // Shapes stand with what runs in FP8; of blocks that are in high precision as a whole there is no more to say.
    let whole = |group: &Group<'_>| if some && !group.fp8 { whole_blocks(plan, group) } else { Vec::new() };
    let rows: Vec<Vec<Row>> = groups.iter().map(|group| rows(&group.layers, &whole(group))).collect();
    let width = |column: fn(&Row) -> usize| rows.iter().flatten().map(column).max().unwrap_or(0);
    let name = width(|row| row.name.chars().count());
    let digits = |side: fn((usize, usize)) -> usize| {
        let shapes = rows.iter().flatten().filter_map(|row| row.shape);
        shapes.map(|shape| side(shape).to_string().len()).max().unwrap_or(0)
    };
    let (wide_n, wide_k) = (digits(|(n, _)| n), digits(|(_, k)| k));
    for (group, rows) in groups.iter().zip(&rows) {
        let count = group.layers.len();
        // Of an FP8 layer counts what runs in FP8, so that the shares add up to that of the first line.
        let flops = |layer: &&PlannedLayer| if group.fp8 { layer.fp8_flops() } else { layer.flops() };
        let share = 100.0 * group.layers.iter().map(flops).sum::<f64>() / plan.flops();
        let word = if group.fp8 { "FP8" } else { "high" };
        let noun = if count == 1 { "layer " } else { "layers" };
        let head = format!("{word:<5}{count:>6} {noun} {share:>6.1} %");
        let _ = writeln!(out);
        for (i, line) in wrapped(group.reason, WIDTH - INDENT).into_iter().enumerate() {
            let _ = writeln!(out, "{:<INDENT$}{line}", if i == 0 { head.as_str() } else { "" });
        }
        for row in rows {
            let shape = row.shape.map_or(String::new(), |(n, k)| format!("{n:>wide_n$} × {k:<wide_k$}"));
            let gain = row.gain.as_deref().unwrap_or_default();
            let line = format!("{:NAMES$}{:<name$} {:>5}  {shape}  {gain}", "", row.name, row.layers);
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out
}

/// Layers of one precision, one recipe and one reason.
struct Group<'a> {
    fp8: bool,
    recipe: Option<usize>,
    reason: &'a str,
    layers: Vec<&'a PlannedLayer>,
}

/// FP8 first, otherwise in the model's order.
fn groups(plan: &LayerPlan) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for layer in &plan.layers {
        let (recipe, reason) = (layer.recipe, layer.decision.reason.as_str());
        let fp8 = layer.decision.precision == Precision::Fp8;
        let same = |group: &&mut Group<'_>| (group.fp8, group.recipe, group.reason) == (fp8, recipe, reason);
        match groups.iter_mut().find(same) {
            Some(group) => group.layers.push(layer),
            None => groups.push(Group { fp8, recipe, reason, layers: vec![layer] }),
        }
    }
    groups.sort_by_key(|group| !group.fp8);
    groups
}

/// A line: layers that are alike.
#[derive(Debug, PartialEq)]
struct Row {
    name: String,
    layers: usize,
    /// N and K.
    shape: Option<(usize, usize)>,
    gain: Option<String>,
}

/// A row in the making: its name in parts.
struct Alike {
    /// The name, with `{}` for the block.
    pattern: String,
    blocks: Vec<usize>,
    like: Row,
}

/// The blocks of which every layer is in `group`.
fn whole_blocks(plan: &LayerPlan, group: &Group<'_>) -> Vec<usize> {
    let of = |layers: &mut dyn Iterator<Item = &PlannedLayer>, block| {
        layers.filter(|layer| layer.facts.block == Some(block)).count()
    };
    let mut blocks: Vec<usize> = group.layers.iter().filter_map(|layer| layer.facts.block).collect();
    blocks.dedup();
    blocks
        .retain(|&block| of(&mut group.layers.iter().copied(), block) == of(&mut plan.layers.iter(), block));
    blocks
}

/// Folds what differs in its block only, then what differs in the beginning of its last part only; `whole` blocks into
/// one line.
fn rows(layers: &[&PlannedLayer], whole: &[usize]) -> Vec<Row> {
    let mut alike: Vec<Alike> = Vec::new();
    for layer in layers {
        let facts = &layer.facts;
        let place = |block: usize| facts.name.find(&format!(".{block}.")).map(|at| (block, at));
        let split = facts.block.and_then(place).map(|(block, at)| {
            let (front, back) = (&facts.name[..at], &facts.name[at + block.to_string().len() + 2..]);
            let back = if whole.contains(&block) { "*" } else { back };
            (block, format!("{front}.{{}}.{back}"))
        });
        let block = split.as_ref().map(|(block, _)| *block);
        let whole = block.is_some_and(|block| whole.contains(&block));
        let pattern = split.map_or(facts.name.clone(), |(_, pattern)| pattern);
        let like = Row {
            name: block.map_or(facts.name.clone(), |block| pattern.replacen("{}", &block.to_string(), 1)),
            layers: 1,
            shape: (!whole).then_some((facts.out_features, facts.in_features)),
            gain: layer.gain.filter(|_| !whole).map(gain::shown),
        };
        let same = |row: &&mut Alike| block.is_some() && row.pattern == pattern && row.like.looks_like(&like);
        match alike.iter_mut().find(same) {
            Some(row) => {
                row.blocks.extend(block.filter(|block| row.blocks.last() != Some(block)));
                row.like.layers += 1;
            }
            None => alike.push(Alike { pattern, blocks: block.into_iter().collect(), like }),
        }
    }
    let mut rows: Vec<Sisters> = Vec::new();
    for Alike { pattern, blocks, like } in alike {
        let name =
            if blocks.len() > 1 { pattern.replacen("{}", &ranges(&blocks), 1) } else { like.name.clone() };
        let (front, head, tail) = parts(&name);
        let same =
            |row: &&mut Sisters| (&row.front, &row.tail) == (&front, &tail) && row.like.looks_like(&like);
        match rows.iter_mut().find(same) {
            Some(row) => {
                row.heads.push(head);
                row.like.layers += like.layers;
            }
            None => rows.push(Sisters { front, heads: vec![head], tail, like }),
        }
    }
    let finish = |Sisters { front, heads, tail, like }: Sisters| {
        let heads = if heads.len() == 1 { heads.concat() } else { format!("{{{}}}", heads.join(",")) };
        Row { name: format!("{front}{heads}{tail}"), ..like }
    };
    rows.into_iter().map(finish).collect()
}

/// A row in the making: `front{heads}tail`.
struct Sisters {
    front: String,
    heads: Vec<String>,
    tail: String,
    like: Row,
}

impl Row {
    fn looks_like(&self, other: &Self) -> bool {
        (self.shape, &self.gain) == (other.shape, &other.gain)
    }
}

/// `a.b.q_proj` as `a.b.`, `q` and `_proj`.
fn parts(name: &str) -> (String, String, String) {
    let start = name.rfind('.').map_or(0, |dot| dot + 1);
    let (front, last) = name.split_at(start);
    let (head, tail) = last.split_at(last.find('_').unwrap_or(last.len()));
    (front.into(), head.into(), tail.into())
}

/// `text` in lines of at most `width` columns, where its words are short enough.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        match line.chars().count() {
            0 => line.push_str(word),
            used if used + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// `[0, 1, 2, 5]` as `{0-2,5}`.
fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == n => *end = n,
            _ => parts.push((n, n)),
        }
    }
    let parts: Vec<String> =
        parts.iter().map(|&(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    format!("{{{}}}", parts.join(","))
}
