//! The group Z*_{N²} of Joye-Libert 2013, §3: the modulus, its checks, and arithmetic in constant time.
//!
//! An element a of Z_{N²} is held as two halves below N, a = low + high·N, because then a product needs half-size products only:
//! (a₀ + a₁N)(b₀ + b₁N) = a₀b₀ + (a₀b₁ + a₁b₀)N modulo N². The halves are reduced by Montgomery's method with R = 2^2048 (Koç,
//! Acar, Kaliski 1996), whose quotient is the carry from the low half into the high one. Squaring costs 1.7 times less than with
//! one Montgomery form of 4096 bits of the same library, which has no squaring of its own.

use std::{fmt, sync::Arc};

use crypto_bigint::{
    Choice, CtAssign, CtEq, CtSelect, Limb, NonZero, Odd, Uint,
    modular::{FixedMontyForm, FixedMontyParams},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bits of the modulus N, always.
pub const MODULUS_BITS: u32 = 2048;
/// Bytes of an element of Z_{N²}: a ciphertext, big-endian.
pub const ELEMENT_BYTES: usize = 512;

/// N and numbers below it.
pub(super) type Half = Uint<32>;
/// Products of two halves, and elements of Z_{N²} as one number.
pub(super) type Full = Uint<64>;
/// Exponents: keys of nodes and sums of up to 65536 of them.
pub(super) type Wide = Uint<67>;

/// Modulus of the RSA Factoring Challenge (RSA Laboratories, 1991 to 2007), RSA-2048: its factors were destroyed with the
/// disk they were made on, and no one has found them.
const RSA_2048: &str = concat!(
    "c7970ceedcc3b0754490201a7aa613cd73911081c790f5f1a8726f463550bb5b7ff0db8e1ea1189ec72f93d1650011bd",
    "721aeeacc2acde32a04107f0648c2813a31f5b0b7765ff8b44b4b6ffc93384b646eb09c7cf5e8592d40ea33c80039f35",
    "b4f14a04b51f7bfd781be4d1673164ba8eb991c2c4d730bbbe35f592bdef524af7e8daefd26c66fc02c479af89d64d37",
    "3f442709439de66ceb955f3ea37d5159f6135809f85334b5cb1813addc80cd05609f10ac6a95ad65872c909525bdad32",
    "bc729592642920f24c61dc5b3c3b7923e56b16a4d9d373d8721f24a3fc0f1b3131f55615172866bccc30f95054c824e7",
    "33a5eb6817f7bc16399d48c6361cc7e5",
);
/// Longest text of a modulus that is read, in bytes: 617 digits with white space between them.
const LONGEST_TEXT: usize = 4096;
/// Factors below this bound are looked for.
const SMALL_FACTORS: u32 = 1 << 16;
/// Bits of an exponent taken at a time.
const WINDOW: u32 = 5;

/// Why a number is no modulus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModulusProblem {
    /// Not a number.
    #[error("the modulus must be one decimal number, or one hexadecimal number after 0x; white space is ignored")]
    NotANumber,
    /// Another size.
    #[error("the modulus must have 2048 bits, this one has {bits}")]
    Size {
        /// Bits it has; 2049 stands for more than 2048.
        bits: u32,
    },
    /// Divisible by a small number.
    #[error("the modulus is divisible by {factor}: it must be a product of two large primes")]
    SmallFactor {
        /// The smallest factor.
        factor: u32,
    },
    /// A power of a smaller number.
    #[error("the modulus is a number to the power {exponent}: it must be a product of two large primes")]
    PerfectPower {
        /// The exponent.
        exponent: u32,
    },
    /// A prime.
    #[error("the modulus is a prime: it must be a product of two large primes that nobody knows")]
    Prime,
}

/// The modulus N with what its arithmetic needs; cheap to clone.
#[derive(Clone)]
pub struct Group(Arc<Constants>);

struct Constants {
    modulus: Odd<Half>,
    montgomery: FixedMontyParams<32>,
    /// −1/N modulo R.
    negative_inverse: Half,
    /// R² modulo N², brings a number into Montgomery form.
    square_of_r: Montgomery,
    one: Montgomery,
    fingerprint: [u8; 32],
}

/// An element of Z_{N²}, low + high·N, both below N.
#[derive(Clone, Copy, PartialEq, Eq, Zeroize)]
pub(super) struct Element {
    pub(super) low: Half,
    pub(super) high: Half,
}

/// An element a as low + high·N/R = a·R modulo N².
#[derive(Clone, Copy, Zeroize)]
pub(super) struct Montgomery {
    low: Half,
    high: Half,
}

/// A secret exponent with its public width.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Exponent {
    pub(super) value: Wide,
    #[zeroize(skip)]
    pub(super) bits: u32,
}

impl fmt::Debug for Group {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Group({:02x?}…)", &self.0.fingerprint[..4])
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::rsa_2048()
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("0x{:x}", self.0.modulus.as_ref()))
    }
}

impl<'de> Deserialize<'de> for Group {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The default has been checked once for all.
        if text.strip_prefix("0x") == Some(RSA_2048) {
            return Ok(Self::rsa_2048());
        }
        Self::from_text(&text).map_err(D::Error::custom)
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.0.modulus == other.0.modulus
    }
}

impl Eq for Group {}

impl Group {
    /// Returns the group of RSA-2048, the default.
    pub fn rsa_2048() -> Self {
        Self::new(Odd::<Half>::from_be_hex(RSA_2048))
    }

    /// Reads a modulus from the text of a file: decimal, or hexadecimal after `0x`; white space is ignored. Takes some
    /// milliseconds.
    pub fn from_text(text: &str) -> Result<Self, ModulusProblem> {
        if text.len() > LONGEST_TEXT {
            return Err(ModulusProblem::NotANumber);
        }
        let digits: String = text.chars().filter(|character| !character.is_ascii_whitespace()).collect();
        let (digits, radix) = digits.strip_prefix("0x").map_or((digits.as_str(), 10), |digits| (digits, 16));
        if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
            return Err(ModulusProblem::NotANumber);
        }
        let number =
            Half::from_str_radix_vartime(digits, radix).map_err(|_| ModulusProblem::Size { bits: MODULUS_BITS + 1 })?;
        Self::from_number(number)
    }

    /// Checks what can be checked of a modulus whose factors are unknown.
    fn from_number(number: Half) -> Result<Self, ModulusProblem> {
        let bits = number.bit_width_vartime();
        if bits != MODULUS_BITS {
            return Err(ModulusProblem::Size { bits });
        }
        let Some(modulus) = Option::<Odd<Half>>::from(Odd::new(number)) else {
            return Err(ModulusProblem::SmallFactor { factor: 2 });
        };
        for factor in (3..SMALL_FACTORS).step_by(2) {
            let divisor = NonZero::new(Limb::from_u32(factor)).expect("not zero");
            if number.rem_limb(divisor) == Limb::ZERO {
                return Err(ModulusProblem::SmallFactor { factor });
            }
        }
        // Roots are above 2^16 by now, so that no exponent beyond 2048 / 16 is possible. The wider type is room for the first guess.
        for exponent in 2..=MODULUS_BITS.div_ceil(SMALL_FACTORS.ilog2()) {
            let divided = std::num::NonZeroU32::new(exponent).expect("two or more");
            if number.resize::<36>().checked_root_vartime(divided).is_some() {
                return Err(ModulusProblem::PerfectPower { exponent });
            }
        }
        let group = Self::new(modulus);
        // Fermat's test to base 2: a product of unknown large primes fails it.
        let base = FixedMontyForm::new(&Half::from_u32(2), &group.0.montgomery);
        if base.pow_vartime(&number.wrapping_sub(&Half::ONE)).retrieve() == Half::ONE {
            return Err(ModulusProblem::Prime);
        }
        Ok(group)
    }

    fn new(modulus: Odd<Half>) -> Self {
        let montgomery = FixedMontyParams::new(modulus);
        let inverse: Half = modulus.as_ref().invert_mod2k_vartime(MODULUS_BITS).expect("an odd number has an inverse");
        // R = low + high·N with high = 0 or 1, squared by schoolbook: R² = low² + 2·low·high·N modulo N².
        let wide = Full::ONE.shl_vartime(MODULUS_BITS);
        let r = split(&wide, modulus.as_nz_ref());
        let (square_low, square_high) = r.low.widening_square();
        let square = split(&square_low.concat(&square_high), modulus.as_nz_ref());
        let low_r = FixedMontyForm::new(&r.low, &montgomery);
        let high_r = FixedMontyForm::new(&r.high, &montgomery);
        let cross = low_r.mul(&high_r).double().retrieve();
        let square_of_r = Element { low: square.low, high: square.high.add_mod(&cross, modulus.as_nz_ref()) };
        let scaled = |element: Element| Montgomery {
            low: element.low,
            high: *FixedMontyForm::new(&element.high, &montgomery).as_montgomery(),
        };
        Self(Arc::new(Constants {
            negative_inverse: inverse.wrapping_neg(),
            square_of_r: scaled(square_of_r),
            one: scaled(r),
            fingerprint: Sha256::digest(modulus.as_ref().to_be_bytes().as_ref()).into(),
            modulus,
            montgomery,
        }))
    }

    /// Returns the SHA-256 of N as 256 bytes big-endian.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.0.fingerprint
    }

    pub(super) fn modulus(&self) -> &NonZero<Half> {
        self.0.modulus.as_nz_ref()
    }

    pub(super) fn montgomery(&self) -> &FixedMontyParams<32> {
        &self.0.montgomery
    }

    /// Reads an element below N² from 512 bytes big-endian; its value is public.
    pub(super) fn element(&self, bytes: &[u8; ELEMENT_BYTES]) -> Option<Element> {
        let number = Full::from_be_slice(bytes);
        let (square_low, square_high) = self.0.modulus.as_ref().widening_square();
        (number < square_low.concat(&square_high)).then(|| split(&number, self.modulus()))
    }

    /// Tells whether public elements are all prime to N: their product is.
    pub(super) fn are_units(&self, elements: &[Element]) -> bool {
        let product = elements.iter().fold(Half::ONE, |product, element| self.half_product(&product, &element.low));
        product.gcd_vartime(self.modulus().as_ref()) == Half::ONE
    }

    /// Returns upper · 2^4096 + lower modulo N²; public.
    pub(super) fn reduce_wide(&self, (upper, lower): &(Half, Full)) -> Element {
        let (square_low, square_high) = self.0.modulus.as_ref().widening_square();
        let square = NonZero::new(square_low.concat(&square_high)).expect("the square of an odd number");
        split(&Full::rem_wide_vartime((*lower, upper.resize()), &square), self.modulus())
    }

    /// Returns low + high·N in 512 bytes big-endian.
    pub(super) fn bytes(&self, element: &Element) -> [u8; ELEMENT_BYTES] {
        let (product_low, product_high) = element.high.widening_mul(self.0.modulus.as_ref());
        let number = product_low.concat(&product_high).wrapping_add(&element.low.resize::<64>());
        number.to_be_bytes().as_ref().try_into().expect("64 limbs are 512 bytes")
    }

    pub(super) fn one(&self) -> Montgomery {
        self.0.one
    }

    pub(super) fn enter(&self, element: &Element) -> Montgomery {
        let scaled = *FixedMontyForm::new(&element.high, &self.0.montgomery).as_montgomery();
        self.multiply(&Montgomery { low: element.low, high: scaled }, &self.0.square_of_r)
    }

    pub(super) fn leave(&self, element: &Montgomery) -> Element {
        let plain = self.multiply(element, &Montgomery { low: Half::ONE, high: Half::ZERO });
        Element { low: plain.low, high: FixedMontyForm::from_montgomery(plain.high, &self.0.montgomery).retrieve() }
    }

    /// Returns a·b/R modulo N²: what stays in Montgomery form.
    pub(super) fn multiply(&self, a: &Montgomery, b: &Montgomery) -> Montgomery {
        let (lower, upper) = a.low.widening_mul(&b.low);
        let (low, carry) = self.divide_by_r(&lower, &upper);
        let first = self.half_product(&a.low, &b.high);
        let second = self.half_product(&a.high, &b.low);
        let high = first.add_mod(&second, self.modulus()).add_mod(&carry, self.modulus());
        Montgomery { low, high }
    }

    fn square(&self, a: &Montgomery) -> Montgomery {
        let (lower, upper) = a.low.widening_square();
        let (low, carry) = self.divide_by_r(&lower, &upper);
        let high = self.half_product(&a.low, &a.high).double_mod(self.modulus()).add_mod(&carry, self.modulus());
        Montgomery { low, high }
    }

    /// Returns a·b/R modulo N.
    pub(super) fn half_product(&self, a: &Half, b: &Half) -> Half {
        let a = FixedMontyForm::from_montgomery(*a, &self.0.montgomery);
        let b = FixedMontyForm::from_montgomery(*b, &self.0.montgomery);
        *a.mul(&b).as_montgomery()
    }

    /// Returns (low, carry), both below N, with (lower + upper·R)/R = low + carry·N/R modulo N², for a number below N².
    fn divide_by_r(&self, lower: &Half, upper: &Half) -> (Half, Half) {
        let modulus = self.modulus();
        // number + quotient·N is divisible by R, and so number/R = (number + quotient·N)/R − quotient·N/R.
        let quotient = lower.wrapping_mul(&self.0.negative_inverse);
        let (_, product) = quotient.widening_mul(modulus.as_ref());
        // The lower halves add up to 0 or to R.
        let rounded = Limb::ZERO.ct_select(&Limb::ONE, lower.is_nonzero());
        let (sum, overflow) = upper.carrying_add(&product, rounded);
        let (reduced, borrow) = sum.borrowing_sub(modulus.as_ref(), Limb::ZERO);
        // Below 2N: taking N away once more is taking R·N/R, so that R goes to the carry.
        let is_above: Choice = overflow.ct_ne(&Limb::ZERO) | borrow.ct_eq(&Limb::ZERO);
        let low = sum.ct_select(&reduced, is_above);
        let r = Half::ZERO.ct_select(self.0.montgomery.one(), is_above);
        let (below, borrow) = quotient.borrowing_sub(modulus.as_ref(), Limb::ZERO);
        let quotient = below.ct_select(&quotient, borrow.ct_ne(&Limb::ZERO));
        (low, r.sub_mod(&quotient, modulus))
    }

    /// Returns base^exponent: fixed windows of five bits, the table read whole each time. Only the exponent's width shows.
    pub(super) fn power(&self, base: &Montgomery, exponent: &Exponent) -> Montgomery {
        let mut table = [self.one(); 1 << WINDOW];
        for index in 1..table.len() {
            table[index] = self.multiply(&table[index - 1], base);
        }
        let mut result = self.one();
        for window in (0..exponent.bits.div_ceil(WINDOW)).rev() {
            for _ in 0..WINDOW {
                result = self.square(&result);
            }
            let digit = window_at(&exponent.value, window * WINDOW);
            let mut factor = table[0];
            for (index, entry) in (0_u64..).zip(&table) {
                let is_it = index.ct_eq(&digit);
                factor.low.ct_assign(&entry.low, is_it);
                factor.high.ct_assign(&entry.high, is_it);
            }
            result = self.multiply(&result, &factor);
        }
        result
    }

    /// Inverts every element with one inversion (Montgomery 1987, §10.3.1); None if one has no inverse.
    pub(super) fn invert_all(&self, elements: &mut [Montgomery]) -> Option<()> {
        let mut prefixes = Vec::with_capacity(elements.len());
        let mut product = self.one();
        for element in elements.iter() {
            prefixes.push(product);
            product = self.multiply(&product, element);
        }
        let mut inverse = self.invert(&product)?;
        for (element, prefix) in elements.iter_mut().zip(prefixes).rev() {
            let own = self.multiply(&inverse, &prefix);
            inverse = self.multiply(&inverse, element);
            *element = own;
        }
        Some(())
    }

    /// Inverts modulo N and lifts: if u·a = 1 modulo N then u·(2 − u·a) inverts a modulo N² (Hensel).
    fn invert(&self, element: &Montgomery) -> Option<Montgomery> {
        let plain = self.leave(element);
        let low = FixedMontyForm::new(&plain.low, &self.0.montgomery);
        let inverse = Option::<FixedMontyForm<32>>::from(low.invert())?.retrieve();
        let inverse = self.enter(&Element { low: inverse, high: Half::ZERO });
        let product = self.leave(&self.multiply(&inverse, element));
        // 2 − (1 + k·N) = 1 + (N − k)·N.
        let correction = Element { low: Half::ONE, high: product.high.neg_mod(self.modulus()) };
        Some(self.multiply(&inverse, &self.enter(&correction)))
    }
}

impl Exponent {
    /// Reads an exponent from big-endian bytes, at most 536.
    pub(super) fn from_be_bytes(bytes: &[u8], bits: u32) -> Self {
        let mut padded = zeroize::Zeroizing::new([0; 67 * 8]);
        let start = padded.len() - bytes.len();
        padded[start..].copy_from_slice(bytes);
        Self { value: Wide::from_be_slice(padded.as_slice()), bits }
    }
}

/// Splits a public number below N² by N.
fn split(number: &Full, modulus: &NonZero<Half>) -> Element {
    let (quotient, low) = number.div_rem_vartime(modulus);
    Element { low, high: quotient.resize() }
}

/// Returns the window of an exponent that begins at a bit; the place is public, the bits are not.
fn window_at(exponent: &Wide, bit: u32) -> u64 {
    let words = exponent.as_words();
    let (word, offset) = ((bit / u64::BITS) as usize, bit % u64::BITS);
    let mut digit = words[word] >> offset;
    if offset + WINDOW > u64::BITS && word + 1 < words.len() {
        digit |= words[word + 1] << (u64::BITS - offset);
    }
    digit & ((1 << WINDOW) - 1)
}

#[cfg(test)]
mod tests;
