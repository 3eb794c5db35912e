//! Rotary frequencies against transformers, for every spelling of them in `config.json`.

use std::path::Path;

use fp8flow_model::ModelConfig;
use serde_json::Value;

#[test]
fn frequencies_are_those_of_transformers_up_to_the_last_place() {
    let goldens: Value = serde_json::from_str(include_str!("../data/rope.json")).unwrap();
    let (mut elements, mut differing) = (0, 0);
    for case in goldens["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let config = ModelConfig::from_json(&case["config"].to_string(), Path::new(name)).unwrap();
        let expected = case["inv_freq_bits"].as_array().unwrap();
        let found = config.inverse_frequencies();
        assert_eq!(found.len(), expected.len(), "{name}");
        for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
            let units = i64::from(found.to_bits()) - expected.as_i64().unwrap();
            assert!(units.abs() <= 1, "{name}: frequency {i} is {units} units in the last place off");
            elements += 1;
            differing += usize::from(units != 0);
        }
    }
    eprintln!("{differing} of {elements} frequencies differ, each in the last place");
    assert!(differing * 10 <= elements, "{differing} of {elements} differ in the last place");
}

#[test]
fn a_table_has_a_row_for_each_position() {
    let config = r#"{"model_type": "llama", "hidden_size": 16, "num_attention_heads": 2}"#;
    let table = ModelConfig::from_json(config, Path::new("config.json")).unwrap().rope_table(5);
    assert_eq!((table.cos.rows(), table.cos.cols()), (5, 4));
    assert_eq!(table.cos.f32()[..4], [1.0; 4]);
    assert_eq!(table.sin.f32()[..4], [0.0; 4]);
    assert_eq!(table.sin.f32()[4], 1.0_f64.sin() as f32);
}
