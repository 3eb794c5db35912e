//! The values of a section or stage, complete and checked.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// Every key of a field table with its value. Reading one cannot fail, because the workflow was checked against that
/// table; asking for a key or a type that the table does not declare is a fault of the program, and panics.
///
/// ```
/// # use fp8flow_flow::Params;
/// # use serde_json::json;
/// let params = Params::new(json!({ "steps": 200, "optimizer": { "lr": 1e-3 }, "epochs": null }), "/flows");
/// let steps: u64 = params.get("steps");
/// let lr: f64 = params.get("optimizer.lr");
/// let epochs: Option<u64> = params.get("epochs");
/// assert_eq!((steps, lr, epochs), (200, 1e-3, None));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    values: Map<String, Value>,
    base: PathBuf,
}

impl Params {
    /// Takes `values` as they are (an object; anything else counts as an empty one); paths are relative to `base`.
    pub fn new(values: Value, base: impl Into<PathBuf>) -> Self {
        let values = if let Value::Object(values) = values { values } else { Map::new() };
        Self { values, base: base.into() }
    }

    /// The value of `key`, which may be dotted: `"optimizer.lr"`.
    pub fn get<'a, T: FromParam<'a>>(&'a self, key: &str) -> T {
        let value = self.value(key);
        T::from_param(value, &self.base).unwrap_or_else(|| {
            panic!("key `{key}` holds {value}, which is not a {}", std::any::type_name::<T>())
        })
    }

    /// The inner table `key`.
    #[must_use]
    pub fn table(&self, key: &str) -> Self {
        self.get(key)
    }

    /// Everything, as JSON in the order of the field table.
    pub fn json(&self) -> &Map<String, Value> {
        &self.values
    }

    /// The folder that paths are relative to.
    pub fn base(&self) -> &Path {
        &self.base
    }

    fn value(&self, key: &str) -> &Value {
        let mut parts = key.split('.');
        let first = parts.next().and_then(|part| self.values.get(part));
        parts
            .fold(first, |value, part| value.and_then(|value| value.get(part)))
            .unwrap_or_else(|| panic!("no key `{key}` is declared; there are: {}", self.keys()))
    }

    fn keys(&self) -> String {
        self.values.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Sets a value that was found while planning.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        let mut parts = key.split('.').collect::<Vec<_>>();
        let Some(last) = parts.pop() else { return };
        let mut table = &mut self.values;
        for part in parts {
            match table.get_mut(part) {
                Some(Value::Object(inner)) => table = inner,
                _ => panic!("no table `{part}` is declared for `{key}`"),
            }
        }
        assert!(table.contains_key(last), "no key `{key}` is declared");
        table.insert(last.into(), value);
    }
}

/// A count or a fraction of a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many.
    Count(u64),
    /// This share, from 0 to 1.
    Fraction(f64),
}

impl Amount {
    /// How many of `whole` that is, rounded down; never more than `whole`.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Count(n) => n.min(whole),
            Self::Fraction(share) => ((share * whole as f64) as u64).min(whole),
        }
    }
}

/// A type that a parameter can be read as.
pub trait FromParam<'a>: Sized {
    /// Reads `value`; paths are relative to `base`. `None` where the type does not fit.
    fn from_param(value: &'a Value, base: &Path) -> Option<Self>;
}

macro_rules! from_param {
    ($($type:ty: |$value:ident, $base:ident| $read:expr;)*) => {$(
        impl<'a> FromParam<'a> for $type {
            fn from_param($value: &'a Value, $base: &Path) -> Option<Self> {
                $read
            }
        }
    )*};
}

from_param! {
    bool: |value, _base| value.as_bool();
    i64: |value, _base| value.as_i64();
    u64: |value, _base| value.as_u64();
    u32: |value, _base| value.as_u64().and_then(|n| n.try_into().ok());
    usize: |value, _base| value.as_u64().and_then(|n| n.try_into().ok());
    f64: |value, _base| value.as_f64();
    f32: |value, _base| value.as_f64().map(|x| x as f32);
    &'a str: |value, _base| value.as_str();
    String: |value, _base| value.as_str().map(String::from);
    PathBuf: |value, base| value.as_str().map(|path| base.join(path));
    &'a Value: |value, _base| Some(value);
    Value: |value, _base| Some(value.clone());
    Params: |value, base| value.is_object().then(|| Params::new(value.clone(), base));
    Amount: |value, _base| value.as_u64().map(Amount::Count).or_else(|| value.as_f64().map(Amount::Fraction));
}

impl<'a, T: FromParam<'a>> FromParam<'a> for Option<T> {
    fn from_param(value: &'a Value, base: &Path) -> Option<Self> {
        if value.is_null() { Some(None) } else { T::from_param(value, base).map(Some) }
    }
}

impl<'a, T: FromParam<'a>> FromParam<'a> for Vec<T> {
    fn from_param(value: &'a Value, base: &Path) -> Option<Self> {
        value.as_array()?.iter().map(|element| T::from_param(element, base)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn params() -> Params {
        Params::new(
            json!({ "path": "data/a.json", "held": 0.25, "count": 7, "skip": ["a", "b"], "inner": { "x": 1.0 },
                    "none": null }),
            "/flows",
        )
    }

    #[test]
    fn values_are_read_by_type() {
        let params = params();
        assert_eq!(params.get::<PathBuf>("path"), Path::new("/flows/data/a.json"));
        assert_eq!(params.get::<Vec<&str>>("skip"), ["a", "b"]);
        assert_eq!(params.get::<Amount>("held"), Amount::Fraction(0.25));
        assert_eq!(params.get::<Amount>("count"), Amount::Count(7));
        assert_eq!(params.table("inner").get::<f32>("x"), 1.0);
        assert_eq!(params.get::<Option<Params>>("none"), None);
    }

    #[test]
    fn an_amount_never_exceeds_the_whole() {
        assert_eq!(Amount::Count(9).of(5), 5);
        assert_eq!(Amount::Fraction(0.5).of(5), 2);
        assert_eq!(Amount::Fraction(1.0).of(5), 5);
    }

    #[test]
    #[should_panic(expected = "no key `setps` is declared")]
    fn a_key_that_is_not_declared_is_a_fault_of_the_program() {
        params().get::<u64>("setps");
    }
}
