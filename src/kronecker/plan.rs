//! In which order a preconditioned product is formed, by operation count.

use core::fmt;

/// Where a factor is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// To the low-rank gradient's rows, before they are multiplied: `M d²` multiply-adds.
    Rows,
    /// To the gradient matrix: `o i d`.
    Gradient,
}

/// The order of a preconditioned product; depends on shapes only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where the input factor is applied.
    pub input: Place,
    /// Where the error factor is applied, if there is one.
    pub error: Option<Place>,
    /// Multiply-adds of all products.
    pub multiply_adds: u128,
}

impl Plan {
    /// For a gradient `[o, i]`, low-rank of `rows` rows or a matrix (`None`). Each side chooses alone: its factor is applied to the
    /// rows if there are fewer of them than the gradient has entries along the other axis.
    pub fn new(o: usize, i: usize, rows: Option<usize>, error_factor: bool) -> Plan {
        let place = |other: usize| if rows.is_some_and(|m| m < other) { Place::Rows } else { Place::Gradient };
        let [wide_o, wide_i] = [o, i].map(|n| n as u128);
        let m = rows.unwrap_or(0) as u128;
        let cost = |at: Place, d: u128, other: u128| if at == Place::Rows { m * d * d } else { other * d * d };
        let input = place(o);
        let error = error_factor.then(|| place(i));
        let error_cost = error.map_or(0, |at| cost(at, wide_o, wide_i));
        let multiply_adds = m * wide_o * wide_i + cost(input, wide_i, wide_o) + error_cost;
        Plan { input, error, multiply_adds }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Place::{Gradient, Rows};
        let order = match (self.input, self.error) {
            (Rows, None) => "E^T (X P)",
            (Gradient, None) => "U P",
            (Rows, Some(Rows)) => "(E Q)^T (X P)",
            (Rows, Some(Gradient)) => "Q (E^T (X P))",
            (Gradient, Some(Rows)) => "((E Q)^T X) P",
            (Gradient, Some(Gradient)) => "Q (U P)",
        };
        write!(f, "{order}, {} multiply-adds", self.multiply_adds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_chooses_alone() {
        let plan = Plan::new(10, 1000, Some(100), true);
        assert_eq!((plan.input, plan.error), (Place::Gradient, Some(Place::Rows)));
        assert_eq!(plan.multiply_adds, 100 * 10 * 1000 + 10 * 1000 * 1000 + 100 * 10 * 10);
        assert_eq!(plan.to_string(), "((E Q)^T X) P, 11010000 multiply-adds");
        let plan = Plan::new(10, 20, None, false);
        assert_eq!((plan.input, plan.error, plan.multiply_adds), (Place::Gradient, None, 10 * 20 * 20));
    }

    #[test]
    fn cheapest_of_all_orders() {
        let sizes = [1usize, 2, 3, 7, 8, 9];
        for index in 0..sizes.len().pow(3) {
            let [o, i, m] = [1, 6, 36].map(|step| sizes[index / step % sizes.len()]);
            let best = [o, m].iter().map(|r| r * i * i).min().unwrap_or(0)
                + [i, m].iter().map(|r| r * o * o).min().unwrap_or(0);
            assert_eq!(Plan::new(o, i, Some(m), true).multiply_adds, (m * o * i + best) as u128);
        }
    }
}
