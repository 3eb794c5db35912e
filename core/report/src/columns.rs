//! More points than a drawing has columns, without losing a spike: of every column the smallest, the largest and the
//! mean.

/// What lies over one column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Column {
    /// The mean place of its points.
    pub(crate) x: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) mean: f64,
}

/// Cuts `points`, ascending in x from `first` to `last`, into at most `most` columns of one width. Points that are not
/// finite are left out.
pub(crate) fn columns(
    points: impl Iterator<Item = (f64, f64)>,
    (first, last): (f64, f64),
    most: usize,
) -> Vec<Column> {
    let width = (last - first) / most as f64;
    let index = |x: f64| if width > 0.0 { (((x - first) / width) as usize).min(most - 1) } else { 0 };
    let mut columns: Vec<Column> = Vec::new();
    let (mut at, mut count) = (None, 0.0);
    for (x, y) in points.filter(|(_, y)| y.is_finite()) {
        let here = Some(index(x));
        if let Some(column) = columns.last_mut().filter(|_| at == here) {
            count += 1.0;
            column.x += (x - column.x) / count;
            column.mean += (y - column.mean) / count;
            column.low = column.low.min(y);
            column.high = column.high.max(y);
        } else {
            (at, count) = (here, 1.0);
            columns.push(Column { x, low: y, high: y, mean: y });
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn extremes_remain_however_many_points_there_are(
            values in prop::collection::vec(prop_oneof![9 => -1e6_f64..1e6, 1 => Just(f64::NAN)], 1..5000),
            most in 1_usize..300,
        ) {
            let points: Vec<(f64, f64)> =
                values.iter().enumerate().map(|(x, y)| ((x + 1) as f64, *y)).collect();
            let columns = columns(points.iter().copied(), (1.0, values.len() as f64), most);
            prop_assert!(columns.len() <= most);
            let finite = || values.iter().copied().filter(|y| y.is_finite());
            let low = |all: &mut dyn Iterator<Item = f64>| all.fold(f64::INFINITY, f64::min);
            let high = |all: &mut dyn Iterator<Item = f64>| all.fold(f64::NEG_INFINITY, f64::max);
            prop_assert_eq!(low(&mut columns.iter().map(|c| c.low)), low(&mut finite()));
            prop_assert_eq!(high(&mut columns.iter().map(|c| c.high)), high(&mut finite()));
            prop_assert!(columns.windows(2).all(|pair| pair[0].x < pair[1].x));
            for Column { low, high, mean, .. } in columns {
                prop_assert!(low <= mean + 1e-6 && mean <= high + 1e-6);
            }
        }
    }

    #[test]
    fn few_points_are_left_as_they_are() {
        let points = [(1.0, 5.0), (2.0, f64::INFINITY), (3.0, 4.0)];
        let columns = columns(points.into_iter(), (1.0, 3.0), 1000);
        let of = |x, y| Column { x, low: y, high: y, mean: y };
        assert_eq!(columns, [of(1.0, 5.0), of(3.0, 4.0)]);
        assert!(super::columns([].into_iter(), (f64::INFINITY, f64::NEG_INFINITY), 3).is_empty());
    }
}
