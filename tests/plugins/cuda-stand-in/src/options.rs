//! The options of NVRTC that the emulator knows; others are refused, as NVRTC refuses what it does not know.

/// What a program is compiled with.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Options {
    /// As it was given: `sm_90a`.
    pub(crate) architecture: String,
    /// `__CUDA_ARCH__`.
    pub(crate) target: u32,
    /// For this compute capability alone.
    pub(crate) exact: bool,
    /// `sm_`, not `compute_`: there is machine code.
    pub(crate) real: bool,
    standard: String,
    contract: bool,
    /// `NAME` or `NAME=VALUE`.
    definitions: Vec<String>,
    /// Whether the log tells what each kernel takes.
    pub(crate) report: bool,
}

fn architecture(name: &str) -> Option<(u32, bool, bool)> {
    let real = name.starts_with("sm_");
    let number = name.strip_prefix("sm_").or_else(|| name.strip_prefix("compute_"))?;
    let (number, exact) = number.strip_suffix('a').map_or((number, false), |number| (number, true));
    let target: u32 = number.parse().ok()?;
    let known =
        [50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 103, 120, 121].contains(&target);
    (known && (!exact || target >= 90)).then_some((target * 10, exact, real))
}

impl Options {
    /// The log says what is wrong, in NVRTC's words.
    pub(crate) fn parse(given: &[String]) -> Result<Self, String> {
        let mut options = Self {
            architecture: "compute_52".to_owned(),
            target: 520,
            exact: false,
            real: false,
            standard: "c++17".to_owned(),
            contract: true,
            definitions: Vec::new(),
            report: false,
        };
        let mut given = given.iter();
        while let Some(option) = given.next() {
            let (name, value) = option.split_once('=').map_or((option.as_str(), None), |(n, v)| (n, Some(v)));
            match (name, value) {
                ("--gpu-architecture" | "-arch", Some(value)) => {
                    let invalid = "nvrtc: error: invalid value for --gpu-architecture (-arch)\n";
                    (options.target, options.exact, options.real) = architecture(value).ok_or(invalid)?;
                    value.clone_into(&mut options.architecture);
                }
                ("--std" | "-std", Some(value)) => {
                    if !["c++03", "c++11", "c++14", "c++17", "c++20"].contains(&value) {
                        return Err("nvrtc: error: invalid value for --std (-std)\n".to_owned());
                    }
                    value.clone_into(&mut options.standard);
                }
                ("--fmad" | "-fmad", Some(value)) => options.contract = value == "true",
                ("--ptxas-options" | "-Xptxas", Some(value)) => {
                    options.report |= value.split(',').any(|value| ["-v", "--verbose"].contains(&value));
                }
                ("--ptxas-options" | "-Xptxas", None) => {
                    options.report |=
                        given.next().is_some_and(|value| ["-v", "--verbose"].contains(&value.as_str()));
                }
                ("--define-macro", Some(value)) => options.definitions.push(value.to_owned()),
                ("--maxrregcount" | "-maxrregcount", Some(value)) if value.parse::<u32>().is_ok() => {}
                (
                    "-lineinfo"
                    | "--generate-line-info"
                    | "-w"
                    | "--disable-warnings"
                    | "--restrict"
                    | "-restrict"
                    | "-default-device"
                    | "--device-as-default-execution-space"
                    | "--extra-device-vectorization",
                    None,
                ) => {}
                ("--use_fast_math" | "-use_fast_math", None) => {
                    return Err("nvrtc: error: the emulated card has no fast math\n".to_owned());
                }
                _ if option.len() > 2 && option.starts_with("-D") => {
                    options.definitions.push(option[2..].to_owned());
                }
                _ => return Err(format!("nvrtc: error: unrecognized option {option} found\n")),
            }
        }
        Ok(options)
    }

    /// The same for the C++ compiler.
    pub(crate) fn compiler_words(&self) -> Vec<String> {
        let contract = if self.contract { "fast" } else { "off" };
        vec![
            format!("-std={}", self.standard),
            format!("-ffp-contract={contract}"),
            format!("-D__CUDA_ARCH__={}", self.target),
            "-D__CUDACC_RTC__".to_owned(),
            "-D__CUDACC__".to_owned(),
            "-D__NVCC__".to_owned(),
        ]
    }

    /// The macros, to be read after the prelude, whose names they may take.
    pub(crate) fn header(&self) -> String {
        let line = |definition: &String| {
            let (name, value) = definition.split_once('=').unwrap_or((definition, "1"));
            format!("#define {name} {value}\n")
        };
        self.definitions.iter().map(line).collect()
    }
}
