//! The page of a run in FP8 holds the proof, and nothing from elsewhere.

use std::fs;

use crate::program::Bench;

#[test]
fn the_page_proves_layer_by_layer_what_ran_in_fp8() {
    let bench = Bench::new();
    let ended = bench.run(&["--set", "stages.train.telemetry.every_steps=1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.all());
    let page = fs::read_to_string(bench.run_folder().join("report.html")).unwrap();
    println!("the page has {} bytes", page.len());
    assert!(page.contains("Every layer ran exactly the FP8 GEMMs that were planned."));
    assert!(page.contains("<b>28 of 29</b> linear layers in FP8"));
    assert!(page.contains("was seen to compute in FP8 before the first step"));
    let stage = fs::read_to_string(bench.run_folder().join("train/stage.json")).unwrap();
    let stage: serde_json::Value = serde_json::from_str(&stage).unwrap();
    // Twelve micro-batches, and evaluations; each layer alone, and those of the four blocks together.
    let forwards = 12 + stage["account"]["fp8"]["passes"]["evaluated"].as_u64().unwrap();
    for (counts, rows) in [([forwards, 12, 12], 28), ([4 * forwards, 48, 48], 7)] {
        let cells = counts.map(|count| format!("<td class=\"number good\">{count}</td>")).concat();
        assert_eq!(page.matches(&cells).count(), rows, "{counts:?}");
    }
    for block in 0..4 {
        for layer in ["self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"] {
            assert!(page.contains(&format!("<code>model.layers.{block}.{layer}</code>")));
        }
    }
    // The digest of the result, and the last link of the chain.
    assert!(page.contains(stage["result"].as_str().unwrap()));
    let digests = fs::read_to_string(bench.run_folder().join("train/digests.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(digests.lines().last().unwrap()).unwrap();
    assert!(page.contains(last["chain"].as_str().unwrap()));

    for foreign in ["<script", "<link", "<img", "<iframe", " src=", "url(", "@import", "http:", "https:"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.match_indices("href=\"").all(|(at, _)| page[at + 6..].starts_with('#')));
    assert!(page.contains("default-src 'none'"), "the browser is told to fetch nothing");

    // It lies beside the results: a second run takes them all.
    let again = bench.run(&["--set", "stages.train.telemetry.every_steps=1"]);
    assert_eq!(again.out.matches("made by run").count(), 6, "{}", again.out);
    let latest = fs::read_to_string(bench.path("runs/latest/report.html")).unwrap();
    assert_eq!(latest.matches("<td class=\"state taken\">taken</td>").count(), 6);
    assert!(latest.contains("<b>28 of 29</b> linear layers in FP8"), "the proof comes with the result");
}
