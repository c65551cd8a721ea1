//! Whether an allele is seen on both strands alike.

use super::likelihood::Testimony;

/// Counts of one allele by strand: forward, reverse.
pub(super) type Strands = [u32; 2];

/// Counts of each of `count` alleles, the reference first.
pub(super) fn strands(
    testimonies: &[Testimony],
    alleles: &[Option<usize>],
    count: usize,
) -> Vec<Strands> {
    let mut strands = vec![[0; 2]; count];
    for (testimony, allele) in testimonies.iter().zip(alleles) {
        if let Some(allele) = *allele {
            strands[allele][usize::from(testimony.reverse)] += 1;
        }
    }
    strands
}

/// Bias of all alternative alleles together against the reference, in Phred.
pub(super) fn strand_bias(strands: &[Strands]) -> f64 {
    let alternative = strands[1..].iter().fold([0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
    fisher(strands[0], alternative)
}

/// Fisher's exact test of strand against allele, two-sided, in Phred.
fn fisher(reference: Strands, alternate: Strands) -> f64 {
    let (a, b, c, d) = (reference[0], reference[1], alternate[0], alternate[1]);
    let (row, column, all) = (a + b, a + c, a + b + c + d);
    if all == 0 {
        return 0.0;
    }
    let mut logs = vec![0.0f64; all as usize + 1];
    for n in 1..=all as usize {
        logs[n] = logs[n - 1] + (n as f64).ln();
    }
    let log = |n: u32| logs[n as usize];
    let fixed = log(row) + log(all - row) + log(column) + log(all - column) - log(all);
    let of = |x: u32| fixed - log(x) - log(row - x) - log(column - x) - log(all + x - row - column);
    let observed = of(a);
    let low = (row + column).saturating_sub(all);
    let as_rare = (low..=row.min(column)).map(of).filter(|&p| p <= observed + 1e-7);
    let p: f64 = as_rare.map(f64::exp).sum();
    (-10.0 * p.clamp(1e-300, 1.0).log10()).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fisher_knows_bias_from_balance() {
        assert!(fisher([20, 20], [10, 10]) < 0.01);
        assert!(fisher([30, 30], [20, 0]) > 40.0);
        // Fisher's tea: 3 and 1 of 4 and 4, two-sided p = 0.4857.
        assert!((fisher([3, 1], [1, 3]) - 3.136).abs() < 0.01);
        assert_eq!(fisher([0, 0], [0, 0]), 0.0);
    }
}
