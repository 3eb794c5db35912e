//! Kernels as text: a source, the headers it may include, and the budget that its head states.

/// A file of CUDA C. Types are its own; it includes the headers of this crate and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file's name without its ending, as messages name it.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
}

/// A [`Source`] from the file `kernels/NAME.cu` beside the file that says so.
#[macro_export]
macro_rules! source {
    ($name:literal) => {
        $crate::Source { name: $name, text: include_str!(concat!("kernels/", $name, ".cu")) }
    };
}

/// The headers that a source may include, by name.
pub const HEADERS: [(&str, &str); 10] = [
    ("attention.cuh", include_str!("kernels/attention.cuh")),
    ("attention_wgmma.cuh", include_str!("kernels/attention_wgmma.cuh")),
    ("cast.cuh", include_str!("kernels/cast.cuh")),
    ("fp8.cuh", include_str!("kernels/fp8.cuh")),
    ("lanes.cuh", include_str!("kernels/lanes.cuh")),
    ("math.cuh", include_str!("kernels/math.cuh")),
    ("ptx.cuh", include_str!("kernels/ptx.cuh")),
    ("types.cuh", include_str!("kernels/types.cuh")),
    ("wgmma.cuh", include_str!("kernels/wgmma.cuh")),
    ("work.cuh", include_str!("kernels/work.cuh")),
];

/// What the head of a source says that its machine code may cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Registers a thread, of the entry point that needs most.
    pub registers: u32,
    /// Bytes of registers that wait in memory.
    pub spills: u32,
    /// The only architecture that it is for, if it is not for all.
    pub only: Option<String>,
    /// Instructions that the machine code has on an architecture.
    pub expects: Vec<(String, String)>,
}

impl Source {
    /// The budget in the head of the file: `// budget: registers 40, spills 0` and `// expects sm_90a: QGMMA`; and, of
    /// one that has instructions of a single architecture, `// only sm_90a`.
    ///
    /// None if it states none.
    pub fn budget(&self) -> Option<Budget> {
        let mut budget = None;
        let mut only = None;
        let mut expects = Vec::new();
        for line in self.text.lines().take_while(|line| line.starts_with("//")) {
            if let Some(text) = line.strip_prefix("// budget: registers ") {
                let (registers, spills) = text.split_once(", spills ")?;
                budget = Some((registers.parse().ok()?, spills.trim().parse().ok()?));
            }
            if let Some(architecture) = line.strip_prefix("// only ") {
                only = Some(architecture.trim().to_owned());
            }
            if let Some((architecture, opcode)) =
                line.strip_prefix("// expects ").and_then(|text| text.split_once(": "))
            {
                expects.push((architecture.to_owned(), opcode.trim().to_owned()));
            }
        }
        budget.map(|(registers, spills)| Budget { registers, spills, only, expects })
    }

    /// The names of its entry points, in order.
    pub fn entries(&self) -> Vec<&'static str> {
        let after = |line: &'static str| {
            let rest = line.strip_prefix("extern \"C\" __global__ void ")?;
            let name = rest
                .strip_prefix("__launch_bounds__(")
                .map_or(Some(rest), |rest| rest.split_once(") ").map(|(_, rest)| rest))?;
            name.split_once('(').map(|(name, _)| name.trim())
        };
        self.text.lines().filter_map(after).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_source_states_its_budget() {
        let text = "// add: x += y.\n// budget: registers 32, spills 0\n// expects sm_89: QMMA\n#include \"types.cuh\"\n\
                    extern \"C\" __global__ void __launch_bounds__(256) add_bf16(\n    u16 *x) {}\n";
        let source = Source { name: "add", text };
        let expects = vec![("sm_89".to_owned(), "QMMA".to_owned())];
        assert_eq!(source.budget(), Some(Budget { registers: 32, spills: 0, only: None, expects }));
        assert_eq!(source.entries(), ["add_bf16"]);
        let text = "// only sm_90a\n// budget: registers 168, spills 0\n";
        let budget = Budget { registers: 168, only: Some("sm_90a".into()), ..Budget::default() };
        assert_eq!(Source { name: "one", text }.budget(), Some(budget));
        assert_eq!(Source { name: "none", text: "int x;" }.budget(), None);
    }
}
