//! The recipes as torchao 0.18.0 itself states them: its nine fields against our table.

use fp8flow_sdk::kernels::Fp8;
use fp8flow_sdk::kernels::scale::ScaleRule;
use fp8flow_sdk::scaled::{Cast, Gemms, Granularity, Source};
use serde_json::{Value, json};
use torchao_rowwise::recipes::{RecipeName, gemms};

/// Our cast of one operand in torchao's words; `along` is the axis that one scale for each row of the operand needs.
fn in_torchaos_words(cast: Option<Cast>, along: Granularity) -> Value {
    let Some(cast) = cast else { return json!("disabled") };
    let granularity = match cast.granularity {
        Granularity::Tensor => "tensorwise",
        axis if axis == along => "axiswise",
        axis => panic!("scales by {axis:?} lie along the contraction"),
    };
    let dtype = match cast.format {
        Fp8::E4m3 => "float8_e4m3fn",
        Fp8::E5m2 => "float8_e5m2",
    };
    json!([granularity, dtype])
}

#[test]
fn the_table_is_torchaos_configuration() {
    let reference: Value = serde_json::from_str(include_str!("data/torchao-recipes.json")).unwrap();
    for name in RecipeName::ALL {
        let reference = reference[name.as_str()].as_object().unwrap();
        assert_eq!(reference["round_scales_to_power_of_2"], name.rounds_scales_to_power_of_2());
        let Gemms { fprop, dgrad, wgrad } = gemms(name, name.rounds_scales_to_power_of_2());
        // Contracted along its columns, an operand has a scale a row of the tensor; along its rows, a scale a column.
        let ours = [
            ("cast_config_input", Some(fprop.x), Granularity::Row),
            ("cast_config_weight", Some(fprop.w), Granularity::Row),
            ("cast_config_grad_output", Some(dgrad.dy), Granularity::Row),
            ("cast_config_weight_for_grad_input", Some(dgrad.w), Granularity::Col),
            ("cast_config_grad_output_for_grad_weight", wgrad.map(|wgrad| wgrad.dy), Granularity::Col),
            ("cast_config_input_for_grad_weight", wgrad.map(|wgrad| wgrad.x), Granularity::Col),
        ];
        assert_eq!(reference.len(), ours.len() + 1);
        for (field, cast, along) in ours {
            let theirs = &reference[field];
            let expected = if theirs["scaling_type"] == "disabled" {
                json!("disabled")
            } else {
                assert_eq!(theirs["scaling_type"], "dynamic");
                json!([theirs["scaling_granularity"], theirs["target_dtype"]])
            };
            assert_eq!(in_torchaos_words(cast, along), expected, "{}: {field}", name.as_str());
        }
    }
}

#[test]
fn the_option_changes_every_scale_rule_and_nothing_else() {
    for name in RecipeName::ALL {
        let rules = |gemms: Gemms| {
            let Gemms { fprop, dgrad, wgrad } = gemms;
            [
                Some(fprop.x),
                Some(fprop.w),
                Some(dgrad.dy),
                Some(dgrad.w),
                wgrad.map(|g| g.dy),
                wgrad.map(|g| g.x),
            ]
        };
        let (with, without) = (rules(gemms(name, true)), rules(gemms(name, false)));
        for (with, without) in with.into_iter().zip(without) {
            let current = Source::Current;
            assert_eq!(with.map(|cast| cast.source), with.map(|_| current(ScaleRule::PowerOfTwo)));
            assert_eq!(with.map(|cast| Cast { source: current(ScaleRule::Linear), ..cast }), without);
        }
    }
}
