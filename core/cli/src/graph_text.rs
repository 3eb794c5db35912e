//! The stages of a workflow as a graph: for Mermaid, for Graphviz, and drawn.

use std::fmt::Write as _;

use fp8flow_flow::Plan;
use fp8flow_report::escaped;

/// Of a box, and between boxes, in pixels.
const WIDTH: usize = 168;
const HEIGHT: usize = 48;
const GAP: [usize; 2] = [64, 28];
const MARGIN: usize = 16;

/// For Mermaid: `flowchart`, left to right.
pub(crate) fn mermaid(plan: &Plan) -> String {
    let mut out = String::from("flowchart LR\n");
    for (index, stage) in plan.stages.iter().enumerate() {
        let text = |text: &str| text.replace('"', "#quot;");
        let _ =
            writeln!(out, "  s{index}[\"{}<br/><small>{}</small>\"]", text(&stage.name), text(&stage.uses));
    }
    for Edge { from, to, key } in edges(plan) {
        let _ = writeln!(out, "  s{from} -->|{key}| s{to}");
    }
    out
}

/// For Graphviz.
pub(crate) fn dot(plan: &Plan) -> String {
    let text = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut out =
        format!("digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box, style=rounded];\n", text(&plan.name));
    for (index, stage) in plan.stages.iter().enumerate() {
        let _ = writeln!(out, "  s{index} [label=\"{}\\n{}\"];", text(&stage.name), text(&stage.uses));
    }
    for Edge { from, to, key } in edges(plan) {
        let _ = writeln!(out, "  s{from} -> s{to} [label=\"{key}\"];");
    }
    out + "}\n"
}

/// Drawn: a column for each length of the way from a stage without inputs.
pub(crate) fn svg(plan: &Plan) -> String {
    let Layout { boxes, ways, width, height } = Layout::of(plan);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" role=\"img\" aria-label=\"the stages of {}\">\n{STYLE}",
        escaped(&plan.name)
    );
    for way in ways {
        let _ = write!(out, "<path d=\"M{} {}", way[0][0], way[0][1]);
        for pair in way.windows(2) {
            let ([x, y], [to_x, to_y]) = (pair[0], pair[1]);
            let middle = usize::midpoint(x, to_x);
            let _ = write!(out, "C{middle} {y} {middle} {to_y} {to_x} {to_y}");
        }
        out += "m-6 -4l6 4l-6 4\"/>\n";
    }
    for (stage, [x, y]) in plan.stages.iter().zip(boxes) {
        let (name, kind) = (escaped(&short(&stage.name)), escaped(&short(&stage.uses)));
        let (text, first, second) = (x + 12, y + 20, y + 38);
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\"/>\
             <text class=\"n\" x=\"{text}\" y=\"{first}\">{name}</text>\
             <text class=\"k\" x=\"{text}\" y=\"{second}\">{kind}</text>"
        );
    }
    out + "</svg>\n"
}

const STYLE: &str = "<style>rect{fill:#f6f8fa;stroke:#8b949e}path{fill:none;stroke:#8b949e;stroke-width:1.5}\
.n{font-size:14px;font-weight:600;fill:#1f2328}.k{font-size:12px;fill:#59636e}\
@media(prefers-color-scheme:dark){rect{fill:#161b22}.n{fill:#e6edf3}.k{fill:#9198a1}}</style>\n";

/// Where everything is, in pixels.
struct Layout {
    /// The upper left corner of each stage's box.
    boxes: Vec<[usize; 2]>,
    /// For each edge the points it passes through; between columns that are no neighbours it has a place of its own in those
    /// between, as a box has.
    ways: Vec<Vec<[usize; 2]>>,
    width: usize,
    height: usize,
}

impl Layout {
    fn of(plan: &Plan) -> Self {
        let mut columns: Vec<usize> = Vec::new();
        // The rows that are taken, by column.
        let mut taken: Vec<usize> = Vec::new();
        let mut place = |column: usize| {
            taken.resize(taken.len().max(column + 1), 0);
            taken[column] += 1;
            [MARGIN + column * (WIDTH + GAP[0]), MARGIN + (taken[column] - 1) * (HEIGHT + GAP[1])]
        };
        let (mut boxes, mut ways): (Vec<[usize; 2]>, Vec<Vec<[usize; 2]>>) = Default::default();
        let edges = edges(plan);
        let middle = |[x, y]: [usize; 2]| [x, y + HEIGHT / 2];
        for stage in 0..plan.stages.len() {
            let into = || edges.iter().filter(|edge| edge.to == stage);
            let column = into().map(|edge| columns[edge.from] + 1).max().unwrap_or(0);
            columns.push(column);
            boxes.push(place(column));
            for Edge { from, .. } in into() {
                let [x, y] = middle(boxes[*from]);
                let mut way = vec![[x + WIDTH, y]];
                for between in columns[*from] + 1..column {
                    let [x, y] = middle(place(between));
                    way.extend([[x, y], [x + WIDTH, y]]);
                }
                way.push(middle(boxes[stage]));
                ways.push(way);
            }
        }
        let rows = taken.iter().copied().max().unwrap_or(0);
        let width = taken.len() * (WIDTH + GAP[0]) - GAP[0].min(taken.len() * GAP[0]) + 2 * MARGIN;
        let height = rows * (HEIGHT + GAP[1]) - GAP[1].min(rows * GAP[1]) + 2 * MARGIN;
        Self { boxes, ways, width, height }
    }
}

struct Edge<'a> {
    from: usize,
    to: usize,
    key: &'a str,
}

fn edges(plan: &Plan) -> Vec<Edge<'_>> {
    let edges = plan.stages.iter().enumerate().flat_map(|(to, stage)| {
        let from = |name: &str| plan.stages.iter().position(|stage| stage.name == name);
        stage.inputs.iter().filter_map(move |(key, name)| Some(Edge { from: from(name)?, to, key }))
    });
    edges.collect()
}

/// What fits into a box.
fn short(text: &str) -> String {
    const MOST: usize = 20;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
