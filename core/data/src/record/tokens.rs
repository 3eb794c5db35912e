//! `{"input_ids": […], "labels": […]}`: rows that are tokens already.

use serde_json::Value;

use super::Record;
use super::shape::{self, Parsed, Shape, describe};
use crate::report::Reason;
use crate::tokens::MASKED;

pub(super) fn parse(row: Value) -> Result<Parsed, Shape> {
    let mut row = shape::object(row, "a row")?;
    let ids = shape::array(shape::required(&mut row, "input_ids")?, "`input_ids`")?;
    let ids: Vec<u32> = numbers(&ids, "input_ids", "a token id (0 to 2147483646)", |id| {
        u32::try_from(id).ok().filter(|&id| id < i32::MAX as u32)
    })?;
    let labels = match shape::optional(&mut row, "labels") {
        None => None,
        Some(labels) => {
            Some(numbers(&shape::array(labels, "`labels`")?, "labels", "a token id or -100", |label| {
                i32::try_from(label).ok().filter(|&label| label == MASKED || (0..i32::MAX).contains(&label))
            })?)
        }
    };
    if let Some(labels) = &labels
        && labels.len() != ids.len()
    {
        return Err(Shape::new(
            format!("one label for each of the {} tokens", ids.len()),
            format!("{} labels", labels.len()),
        ));
    }
    Ok(if ids.is_empty() { Err(Reason::EmptyText) } else { Ok(Record::Tokens { ids, labels }) })
}

fn numbers<T>(
    items: &[Value],
    key: &str,
    expected: &str,
    accept: impl Fn(i64) -> Option<T>,
) -> Result<Vec<T>, Shape> {
    let number = |(i, item): (usize, &Value)| {
        item.as_i64()
            .and_then(&accept)
            .ok_or_else(|| Shape::new(format!("`{key}[{i}]` to be {expected}"), describe(item)))
    };
    items.iter().enumerate().map(number).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_optional_and_not_shifted() {
        let tokens = |labels| Ok(Record::Tokens { ids: vec![5, 6, 7], labels });
        assert_eq!(parse(json!({"input_ids": [5, 6, 7]})).unwrap(), tokens(None));
        assert_eq!(parse(json!({"input_ids": [5, 6, 7], "labels": null})).unwrap(), tokens(None));
        assert_eq!(
            parse(json!({"input_ids": [5, 6, 7], "labels": [-100, 6, 7]})).unwrap(),
            tokens(Some(vec![MASKED, 6, 7]))
        );
        assert_eq!(parse(json!({"input_ids": []})).unwrap(), Err(Reason::EmptyText));
    }

    #[test]
    fn numbers_that_are_no_tokens_are_errors() {
        for (row, expected, found) in [
            (
                json!({"input_ids": [1, -1]}),
                "`input_ids[1]` to be a token id (0 to 2147483646)",
                "the number -1",
            ),
            (
                json!({"input_ids": [1.5]}),
                "`input_ids[0]` to be a token id (0 to 2147483646)",
                "the number 1.5",
            ),
            (
                json!({"input_ids": [2147483647]}),
                "`input_ids[0]` to be a token id (0 to 2147483646)",
                "the number 2147483647",
            ),
            (json!({"input_ids": ["1"]}), "`input_ids[0]` to be a token id (0 to 2147483646)", "a string"),
            (
                json!({"input_ids": [1], "labels": [-1]}),
                "`labels[0]` to be a token id or -100",
                "the number -1",
            ),
            (json!({"input_ids": [1, 2], "labels": [1]}), "one label for each of the 2 tokens", "1 labels"),
            (json!({"ids": [1]}), "the key `input_ids`", "the keys `ids`"),
        ] {
            assert_eq!(parse(row).unwrap_err(), Shape::new(expected, found));
        }
    }
}
