//! Shamir's secret sharing over a prime field (Shamir 1979; specification §5 and §9): constant time in the secrets, not in the
//! points, which are public.

use crypto_bigint::modular::{ConstMontyForm, ConstMontyParams};
use crypto_bigint::{U320, Uint, const_monty_params};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::party::Point;
use crate::problem::Problem;

/// Is a prime field that secrets are shared over.
pub trait Field<const LIMBS: usize>: ConstMontyParams<LIMBS> {
    /// Counts the bits of the modulus.
    const BITS: u32;
    /// Counts the bytes of a share.
    const SHARE_BYTES: usize = Self::BITS.div_ceil(8) as usize;
}

const_monty_params!(
    Prime257,
    U320,
    "00000000000000010000000000000000000000000000000000000000000000000000000000000129",
    "Is the field of 32-byte secrets: integers modulo 2^256 + 297, the smallest prime above 2^256."
);

impl Field<{ U320::LIMBS }> for Prime257 {
    const BITS: u32 = 257;
}

/// Counts the limbs of [`Prime257`].
pub const LIMBS_257: usize = U320::LIMBS;

/// Is a number of the field in Montgomery form.
pub type Element<F, const LIMBS: usize> = ConstMontyForm<F, LIMBS>;

/// Reads a number written big-endian in the bytes of a share; refuses other lengths and numbers not below the modulus.
pub fn read<F: Field<LIMBS>, const LIMBS: usize>(bytes: &[u8]) -> Result<Element<F, LIMBS>, Problem> {
    if bytes.len() != F::SHARE_BYTES {
        return Err(Problem::Length { what: "share", expected: F::SHARE_BYTES, got: bytes.len() });
    }
    let mut number = integer::<LIMBS>(bytes);
    if &number >= F::PARAMS.modulus().as_ref() {
        return Err(Problem::Malformed { what: "share" });
    }
    let element = Element::new(&number);
    number.zeroize();
    Ok(element)
}

/// Writes a number big-endian in the bytes of a share.
pub fn write<F: Field<LIMBS>, const LIMBS: usize>(element: &Element<F, LIMBS>) -> Zeroizing<Vec<u8>> {
    let mut number = element.retrieve();
    let bytes = number.to_be_bytes();
    number.zeroize();
    let bytes = bytes.as_ref();
    Zeroizing::new(bytes[bytes.len() - F::SHARE_BYTES..].to_vec())
}

fn integer<const LIMBS: usize>(bytes: &[u8]) -> Uint<LIMBS> {
    Uint::from_be_slice_truncated(bytes, Uint::<LIMBS>::BITS)
}

/// Is a random polynomial whose constant term is the secret; wiped on drop.
pub struct Polynomial<F: Field<LIMBS>, const LIMBS: usize>(Zeroizing<Vec<Element<F, LIMBS>>>);

impl<F: Field<LIMBS>, const LIMBS: usize> Polynomial<F, LIMBS> {
    /// Draws a polynomial of degree t − 1; the secret is read big-endian and may be shorter than a share.
    pub fn draw(secret: &[u8], threshold: u32, rng: &mut impl CryptoRng) -> Result<Self, Problem> {
        let mut padded = Zeroizing::new(vec![0; F::SHARE_BYTES]);
        let Some(start) = F::SHARE_BYTES.checked_sub(secret.len()) else {
            return Err(Problem::Length { what: "secret", expected: F::SHARE_BYTES, got: secret.len() });
        };
        padded[start..].copy_from_slice(secret);
        let mut coefficients = Zeroizing::new(Vec::with_capacity(threshold as usize));
        coefficients.push(read(&padded)?);
        for _ in 1..threshold {
            coefficients.push(Self::coefficient(rng));
        }
        Ok(Self(coefficients))
    }

    /// Draws a number uniform below the modulus by rejection.
    fn coefficient(rng: &mut impl CryptoRng) -> Element<F, LIMBS> {
        let mut bytes = Zeroizing::new(vec![0; F::SHARE_BYTES]);
        loop {
            rng.fill_bytes(&mut bytes);
            if !F::BITS.is_multiple_of(8) {
                bytes[0] &= (1 << (F::BITS % 8)) - 1;
            }
            if let Ok(element) = read(&bytes) {
                return element;
            }
        }
    }

    /// Gives the share of a point, by Horner's rule.
    pub fn share(&self, point: Point) -> Zeroizing<Vec<u8>> {
        let x = Element::new(&Uint::from_u32(point.get()));
        let mut value = Element::ZERO;
        for coefficient in self.0.iter().rev() {
            value = value.mul(&x).add(coefficient);
        }
        let bytes = write(&value);
        value.zeroize();
        bytes
    }
}

/// Holds the weights that turn shares at fixed points into the polynomial's value elsewhere (Lagrange), for any number of secrets.
pub struct Interpolation<F: Field<LIMBS>, const LIMBS: usize>(Vec<Element<F, LIMBS>>);

impl<F: Field<LIMBS>, const LIMBS: usize> Interpolation<F, LIMBS> {
    /// Computes the weights for the value at x = `at`: 0 gives the secret, another point the share that a holder should have.
    /// The points must differ.
    pub fn new(points: &[Point], at: u32) -> Self {
        let x: Vec<Element<F, LIMBS>> = points.iter().map(|point| Element::new(&Uint::from_u32(point.get()))).collect();
        let at = Element::new(&Uint::from_u32(at));
        let weight = |i: usize| {
            let (mut above, mut below) = (Element::ONE, Element::ONE);
            for (j, xj) in x.iter().enumerate().filter(|(j, _)| *j != i) {
                debug_assert_ne!(points[i], points[j], "points differ");
                above = above.mul(&at.sub(xj));
                below = below.mul(&x[i].sub(xj));
            }
            above.mul(&below.invert_vartime().expect("points differ, so that no difference is zero modulo a larger prime"))
        };
        Self((0..x.len()).map(weight).collect())
    }

    /// Gives the value for shares in the order of the points.
    pub fn value(&self, shares: &[Element<F, LIMBS>]) -> Element<F, LIMBS> {
        debug_assert_eq!(self.0.len(), shares.len(), "one share for each point");
        self.0.iter().zip(shares).fold(Element::ZERO, |sum, (weight, share)| sum.add(&weight.mul(share)))
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;

    type Poly = Polynomial<Prime257, LIMBS_257>;
    type Inter = Interpolation<Prime257, LIMBS_257>;

    fn points(range: std::ops::Range<usize>) -> Vec<Point> {
        range.map(Point::of_index).collect()
    }

    #[test]
    fn any_threshold_of_shares_give_the_secret_and_fewer_do_not() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        for threshold in 1..8 {
            let mut secret = [0; 32];
            rng.fill_bytes(&mut secret);
            let polynomial = Poly::draw(&secret, threshold, &mut rng).unwrap();
            let all = points(0..9);
            let shares: Vec<_> = all.iter().map(|point| read(&polynomial.share(*point)).unwrap()).collect();
            for start in 0..=9 - threshold as usize {
                let range = start..start + threshold as usize;
                let value = Inter::new(&all[range.clone()], 0).value(&shares[range.clone()]);
                assert_eq!(write(&value)[1..], secret, "threshold {threshold} from {start}");
                assert_eq!(write(&value)[0], 0);
                let other = Inter::new(&all[range.clone()], 9).value(&shares[range]);
                assert_eq!(other, shares[8], "the share of another holder");
            }
            if threshold > 1 {
                let fewer = 0..threshold as usize - 1;
                assert_ne!(write(&Inter::new(&all[fewer.clone()], 0).value(&shares[fewer]))[1..], secret);
            }
        }
    }

    #[test]
    fn numbers_not_below_the_prime_and_other_lengths_are_refused() {
        let mut bytes = vec![0; 33];
        bytes[0] = 1;
        bytes[31..].copy_from_slice(&[0x01, 0x29]);
        assert_eq!(read::<Prime257, LIMBS_257>(&bytes), Err(Problem::Malformed { what: "share" }));
        bytes[32] = 0x28;
        assert_eq!(*write(&read::<Prime257, LIMBS_257>(&bytes).unwrap()), bytes);
        assert!(read::<Prime257, LIMBS_257>(&bytes[1..]).is_err());
        bytes[0] = 3;
        assert!(read::<Prime257, LIMBS_257>(&bytes).is_err());
    }
}
