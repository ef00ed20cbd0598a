//! Encryption and aggregation (Joye-Libert 2013, §3): packing, masks computed ahead, ciphertexts, their product.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use crypto_bigint::modular::FixedMontyForm;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Problem;
use super::group::{ELEMENT_BYTES, Element, Exponent, Group, Half, MODULUS_BITS, Montgomery};
use super::hash::Label;
use crate::mask::Modulus;

/// Bytes of a label's digest, which stands before stored masks.
const DIGEST_BYTES: usize = 32;

/// How elements modulo 2^w lie in a plaintext (specification §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    modulus: Modulus,
    /// Bits from one element to the next.
    slot: usize,
    parties: u32,
}

impl Packing {
    /// Leaves ⌈log2(n)⌉ bits above each element for the sum.
    pub fn new(modulus: Modulus, parties: u32) -> Self {
        let carry = parties.next_power_of_two().ilog2() as usize;
        Self { modulus, slot: modulus.bytes() * 8 + carry, parties }
    }

    /// Counts the elements of a plaintext.
    pub fn per_ciphertext(&self) -> usize {
        (MODULUS_BITS as usize - 1) / self.slot
    }

    /// Counts the ciphertexts of a vector.
    pub fn ciphertexts(&self, elements: usize) -> usize {
        elements.div_ceil(self.per_ciphertext())
    }

    /// Counts the bytes of a vector's ciphertexts; none if they are more than can be counted.
    pub fn byte_len(&self, elements: usize) -> Option<u64> {
        let bytes = self.ciphertexts(elements).checked_mul(ELEMENT_BYTES)?;
        u64::try_from(bytes).ok()
    }

    /// Counts the bytes of a contribution of these vectors: what their elements are summed modulo, and how many there are. This is
    /// the one length that a contribution is compared with, wherever it is.
    pub fn contribution_bytes(parties: u32, vectors: impl IntoIterator<Item = (Modulus, Option<usize>)>) -> Option<u64> {
        vectors
            .into_iter()
            .try_fold(0_u64, |sum, (modulus, elements)| sum.checked_add(Self::new(modulus, parties).byte_len(elements?)?))
    }

    fn highest_bit(&self) -> u128 {
        1 << (self.modulus.bytes() * 8 - 1)
    }

    /// Packs little-endian elements, at most as many as fit. The highest bit of each is flipped, so that a sum's carries do not
    /// tell how many of its terms were negative.
    fn pack(&self, elements: &[u8]) -> Half {
        let mut words = Zeroizing::new([0_u64; Half::LIMBS]);
        for (number, bytes) in elements.chunks_exact(self.modulus.bytes()).enumerate() {
            let mut padded = Zeroizing::new([0; 16]);
            padded[..bytes.len()].copy_from_slice(bytes);
            let value = u128::from_le_bytes(*padded) ^ self.highest_bit();
            let (word, offset) = (number * self.slot / 64, number * self.slot % 64);
            let (low, high) = (value << offset, if offset == 0 { 0 } else { value >> (128 - offset) });
            let parts =
                [low, low >> 64, high].map(|part| u64::try_from(part & u128::from(u64::MAX)).expect("masked to 64 bits"));
            for (word, part) in words[word..].iter_mut().zip(parts) {
                *word |= part;
            }
        }
        Half::from_words(*words)
    }

    /// Unpacks the sum of n plaintexts of `count` elements each, modulo 2^w; None if there is something above the last slot.
    fn unpack(&self, plaintext: &Half, count: usize, elements: &mut Vec<u8>) -> Option<()> {
        let words = plaintext.as_words();
        if (count * self.slot..Half::BITS as usize).any(|bit| words[bit / 64] >> (bit % 64) & 1 == 1) {
            return None;
        }
        let at = |word: usize| u128::from(words.get(word).copied().unwrap_or(0));
        // n · 2^(w−1) modulo 2^w.
        let flips = if self.parties.is_multiple_of(2) { 0 } else { self.highest_bit() };
        for number in 0..count {
            let (word, offset) = (number * self.slot / 64, number * self.slot % 64);
            let low = (at(word) | at(word + 1) << 64) >> offset;
            let high = if offset == 0 { 0 } else { at(word + 2) << (128 - offset) };
            let value = (low | high).wrapping_sub(flips);
            elements.extend_from_slice(&value.to_le_bytes()[..self.modulus.bytes()]);
        }
        Some(())
    }
}

/// The powers of one vector's hashes: of a node h^sk, of the researcher h^(−Σ sk), as far as they are computed. They do not
/// depend on the data. Secret: whoever has a node's masks reads its vector.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Masks {
    label: [u8; DIGEST_BYTES],
    elements: Vec<Element>,
}

impl Masks {
    /// Counts the masks there are; the next to compute has this number.
    pub fn len(&self) -> usize {
        self.elements.len()
    }

    /// Tells whether none is computed yet.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Returns the masks to be stored: the label's digest, then 512 bytes for each.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(DIGEST_BYTES + self.elements.len() * ELEMENT_BYTES));
        bytes.extend_from_slice(&self.label);
        for element in &self.elements {
            bytes.extend_from_slice(element.low.to_be_bytes().as_ref());
            bytes.extend_from_slice(element.high.to_be_bytes().as_ref());
        }
        bytes
    }

    /// Reads stored masks.
    pub fn from_bytes(group: &Group, bytes: &[u8]) -> Result<Self, Problem> {
        let (label, rest) = bytes.split_first_chunk::<DIGEST_BYTES>().ok_or(Problem::StoredMasks)?;
        let (chunks, []) = rest.as_chunks::<ELEMENT_BYTES>() else { return Err(Problem::StoredMasks) };
        let mut masks = Self { label: *label, elements: Vec::with_capacity(chunks.len()) };
        for chunk in chunks {
            let (low, high) = chunk.split_at(ELEMENT_BYTES / 2);
            let element = Element { low: Half::from_be_slice(low), high: Half::from_be_slice(high) };
            if [element.low, element.high].iter().any(|half| half >= group.modulus().as_ref()) {
                return Err(Problem::StoredMasks);
            }
            masks.elements.push(element);
        }
        Ok(masks)
    }

    /// Returns the masks if they are those of this label and as many as needed.
    fn checked(&self, label: &Label, needed: usize) -> Result<&[Element], Problem> {
        if self.label != label.digest() {
            return Err(Problem::OtherMasks);
        }
        self.elements.get(..needed).ok_or(Problem::MasksMissing { got: self.elements.len(), needed })
    }
}

/// Whose masks are computed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Node,
    /// Its powers are inverted, all of one call at once.
    Researcher,
}

/// Computes masks: a key with all it needs, to be moved to where training leaves processors idle.
#[derive(Clone)]
pub struct Masker {
    pub(super) group: Group,
    pub(super) exponent: Exponent,
    pub(super) side: Side,
}

impl Masker {
    /// Begins the masks of a vector with none (specification §9).
    pub fn begin(&self, label: &Label) -> Masks {
        Masks { label: label.digest(), elements: Vec::new() }
    }

    /// Computes masks up to `ciphertexts` in all (Joye-Libert 2013, §3: H(t)^sk), one power each, on the given number of threads (of which all but one are started
    /// here). Stops when `proceed` says no, which it is asked before each power; what was computed by then stays, and a later call
    /// goes on from there.
    pub fn extend(
        &self,
        label: &Label,
        masks: &mut Masks,
        ciphertexts: usize,
        threads: NonZeroUsize,
        proceed: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Problem> {
        masks.checked(label, 0)?;
        let next = AtomicUsize::new(masks.len());
        let work = || {
            let mut powers = Vec::new();
            while proceed() {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= ciphertexts {
                    break;
                }
                let hash = label.hash(&self.group, u64::try_from(number).expect("a count of elements in memory"));
                powers.push((number, self.group.power(&self.group.enter(&hash), &self.exponent)));
            }
            powers
        };
        let mut powers = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.get()).map(|_| scope.spawn(work)).collect();
            let mut powers = work();
            for other in others {
                powers.extend(other.join().expect("powers do not panic"));
            }
            powers
        });
        // A number that was taken was also computed, so that there are no gaps.
        powers.sort_unstable_by_key(|(number, _)| *number);
        let mut elements = Zeroizing::new(Vec::with_capacity(powers.len()));
        for (_, power) in &mut powers {
            elements.push(*power);
            power.zeroize();
        }
        if self.side == Side::Researcher {
            self.group.invert_all(&mut elements).expect("hashes are prime to N, and so are their powers");
        }
        masks.elements.extend(elements.iter().map(|power| self.group.leave(power)));
        Ok(())
    }
}

/// Encrypts a vector: (1 + x·N)·h^sk modulo N² (Joye-Libert 2013, §3), one product for each ciphertext.
pub(super) fn encrypt(
    group: &Group,
    packing: &Packing,
    label: &Label,
    elements: &[u8],
    masks: &Masks,
) -> Result<Vec<u8>, Problem> {
    let width = packing.modulus.bytes();
    if !elements.len().is_multiple_of(width) {
        return Err(crate::problem::Problem::Elements { got: elements.len() / width, width }.into());
    }
    let chunks = elements.chunks(packing.per_ciphertext() * width);
    let masks = masks.checked(label, chunks.len())?;
    let mut bytes = Vec::with_capacity(chunks.len() * ELEMENT_BYTES);
    for (chunk, mask) in chunks.zip(masks) {
        let mut plaintext = packing.pack(chunk);
        // (1 + x·N)·(low + high·N) = low + (high + x·low)·N.
        let mut scaled = *FixedMontyForm::new(&plaintext, group.montgomery()).as_montgomery();
        let high = mask.high.add_mod(&group.half_product(&scaled, &mask.low), group.modulus());
        bytes.extend_from_slice(&group.bytes(&Element { low: mask.low, high }));
        plaintext.zeroize();
        scaled.zeroize();
    }
    Ok(bytes)
}

/// The product of the ciphertexts of one vector: holds 512 bytes for each ciphertext, for any number of nodes.
pub(super) struct Product {
    group: Group,
    packing: Packing,
    elements: usize,
    so_far: Vec<Montgomery>,
}

impl Product {
    pub(super) fn new(group: Group, packing: Packing, elements: usize) -> Self {
        let so_far = vec![group.one(); packing.ciphertexts(elements)];
        Self { group, packing, elements, so_far }
    }

    /// Multiplies with a node's ciphertexts, all or none; None if one is not of Z*_{N²}, or they are not as many.
    pub(super) fn multiply(&mut self, ciphertexts: &[u8]) -> Option<()> {
        let (chunks, []) = ciphertexts.as_chunks::<ELEMENT_BYTES>() else { return None };
        if chunks.len() != self.so_far.len() {
            return None;
        }
        let factors: Vec<Element> = chunks.iter().map(|chunk| self.group.element(chunk)).collect::<Option<_>>()?;
        if !self.group.are_units(&factors) {
            return None;
        }
        for (product, factor) in self.so_far.iter_mut().zip(&factors) {
            *product = self.group.multiply(product, &self.group.enter(factor));
        }
        Some(())
    }

    /// Takes the researcher's masks off: the sum modulo 2^w, little-endian.
    pub(super) fn aggregate(&self, label: &Label, masks: &Masks) -> Result<Vec<u8>, Problem> {
        let masks = masks.checked(label, self.so_far.len())?;
        let mut sum = Vec::with_capacity(self.elements * self.packing.modulus.bytes());
        let mut left = self.elements;
        for (product, mask) in self.so_far.iter().zip(masks) {
            let plain = self.group.leave(&self.group.multiply(product, &self.group.enter(mask)));
            let count = left.min(self.packing.per_ciphertext());
            left -= count;
            // 1 + x·N.
            if plain.low != Half::ONE || self.packing.unpack(&plain.high, count, &mut sum).is_none() {
                return Err(Problem::DoesNotBelong);
            }
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;
    use crate::joye_libert::keys::KeysId;
    use crate::mask::VectorName;
    use crate::party::Experiment;
    use crate::session::{Context, Terms};
    use crate::wire::Fixed;

    /// Keys of 60 bits: the width of keys makes no difference to sums, but to the time they take.
    const BITS: u32 = 60;
    const ONE: NonZeroUsize = NonZeroUsize::MIN;

    fn label(name: &str) -> Label {
        let context = Context { experiment: Experiment::new("e").unwrap(), round: 1, attempt: 0, phase: 0 };
        let terms = Terms(Fixed([0; 32]));
        Label::new(KeysId(Fixed([1; 32])), &context, terms, VectorName { index: 0, purpose: "update", name })
    }

    fn masker(group: &Group, key: u64, side: Side) -> Masker {
        let exponent = Exponent::from_be_bytes(&key.to_be_bytes(), BITS + 3);
        Masker { group: group.clone(), exponent, side }
    }

    fn masks(masker: &Masker, label: &Label, count: usize) -> Masks {
        let mut masks = masker.begin(label);
        masker.extend(label, &mut masks, count, ONE, &|| true).unwrap();
        masks
    }

    /// Encrypts one vector for each node under keys 1, 2, … times a constant, and opens the sum.
    fn sum_of(modulus: Modulus, vectors: &[Vec<u8>]) -> Result<Vec<u8>, Problem> {
        let (group, label) = (Group::rsa_2048(), label("w"));
        let packing = Packing::new(modulus, u32::try_from(vectors.len()).unwrap());
        let elements = vectors[0].len() / modulus.bytes();
        let needed = packing.ciphertexts(elements);
        let mut product = Product::new(group.clone(), packing, elements);
        let mut sum = 0;
        for (vector, number) in vectors.iter().zip(1..) {
            let key = number * 0x0012_3456_789a_bcde;
            sum += key;
            let masks = masks(&masker(&group, key, Side::Node), &label, needed);
            product.multiply(&encrypt(&group, &packing, &label, vector, &masks)?).unwrap();
        }
        product.aggregate(&label, &masks(&masker(&group, sum, Side::Researcher), &label, needed))
    }

    fn bytes(modulus: Modulus, elements: &[u128]) -> Vec<u8> {
        elements.iter().flat_map(|element| element.to_le_bytes()[..modulus.bytes()].to_vec()).collect()
    }

    /// Adds modulo 2^w, by another way than the code under test.
    fn plain_sum(modulus: Modulus, vectors: &[Vec<u128>]) -> Vec<u8> {
        let sums: Vec<u128> = (0..vectors[0].len())
            .map(|at| vectors.iter().fold(0_u128, |sum, vector| sum.wrapping_add(vector[at])))
            .collect();
        bytes(modulus, &sums)
    }

    const ALL: [Modulus; 3] = [Modulus::Bits32, Modulus::Bits64, Modulus::Bits128];

    #[test]
    fn slots_are_as_wide_as_sums_and_fill_the_plaintext() {
        let per = |modulus, parties| Packing::new(modulus, parties).per_ciphertext();
        assert_eq!([2, 3, 4, 5, 8, 9].map(|n| per(Modulus::Bits32, n)), [62, 60, 60, 58, 58, 56]);
        assert_eq!([2, 3, 5].map(|n| per(Modulus::Bits64, n)), [31, 31, 30]);
        assert_eq!([2, 3, 5, 65_536].map(|n| per(Modulus::Bits128, n)), [15, 15, 15, 14]);
        let packing = Packing::new(Modulus::Bits32, 3);
        assert_eq!([0, 1, 60, 61, 120].map(|elements| packing.ciphertexts(elements)), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn sums_are_exact_at_the_borders_of_packing_and_of_elements() {
        for modulus in ALL {
            for parties in [2, 3, 4, 5, 6] {
                let per = Packing::new(modulus, parties).per_ciphertext();
                for length in [0, 1, per - 1, per, per + 1] {
                    let ends = [0, 1, u128::MAX, u128::MAX / 2, u128::MAX / 2 + 1, 0x8000_0000, 0x7fff_ffff];
                    let vectors: Vec<Vec<u128>> = (0..parties as usize)
                        .map(|party| (0..length).map(|at| ends[(at * (party % 3) + party) % ends.len()]).collect())
                        .collect();
                    let encoded: Vec<_> = vectors.iter().map(|vector| bytes(modulus, vector)).collect();
                    assert_eq!(
                        sum_of(modulus, &encoded).unwrap(),
                        plain_sum(modulus, &vectors),
                        "{modulus:?} {parties} {length}"
                    );
                }
                let most = vec![bytes(modulus, &vec![u128::MAX; per]); parties as usize];
                let expected = bytes(modulus, &vec![0_u128.wrapping_sub(u128::from(parties)); per]);
                assert_eq!(sum_of(modulus, &most).unwrap(), expected, "every node has the largest number");
            }
        }
    }

    /// Of signed values with the same sum, the plaintext of the sum is the same whatever their signs.
    #[test]
    fn the_opened_plaintext_does_not_tell_how_many_terms_were_negative() {
        let packing = Packing::new(Modulus::Bits32, 4);
        let opened = |terms: [i32; 4]| {
            terms.iter().fold(Half::ZERO, |sum, term| sum.wrapping_add(&packing.pack(&term.to_le_bytes())))
        };
        let reference = opened([0, 0, 0, 0]);
        for terms in [[-1, 1, 0, 0], [-5, -5, -5, 15], [i32::MIN, i32::MAX, 1, 0], [7, -3, -2, -2]] {
            assert!(opened(terms) == reference, "{terms:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn sums_are_exact_modulo_two_to_the_w(
            parties in 2_usize..=6,
            modulus in proptest::sample::select(&ALL),
            seed in proptest::collection::vec(any::<u128>(), 1..70),
        ) {
            let vectors: Vec<Vec<u128>> = (0..parties)
                .map(|party| seed.iter().map(|value| value.rotate_left(u32::try_from(party).unwrap() * 17)).collect())
                .collect();
            let encoded: Vec<_> = vectors.iter().map(|vector| bytes(modulus, vector)).collect();
            prop_assert_eq!(sum_of(modulus, &encoded).unwrap(), plain_sum(modulus, &vectors));
        }
    }

    #[test]
    fn masks_can_be_stopped_stored_and_continued_and_do_not_depend_on_threads() {
        let (group, label) = (Group::rsa_2048(), label("w"));
        for side in [Side::Node, Side::Researcher] {
            let masker = masker(&group, 12345, side);
            let whole = masks(&masker, &label, 9).to_bytes();
            for threads in [1, 3] {
                let asked = AtomicUsize::new(0);
                let mut part = masker.begin(&label);
                let four = || asked.fetch_add(1, Ordering::Relaxed) < 4;
                masker.extend(&label, &mut part, 9, NonZeroUsize::new(threads).unwrap(), &four).unwrap();
                assert_eq!(part.len(), 4);
                let mut stored = Masks::from_bytes(&group, &part.to_bytes()).unwrap();
                masker.extend(&label, &mut stored, 9, NonZeroUsize::new(threads).unwrap(), &|| true).unwrap();
                assert_eq!(*stored.to_bytes(), *whole);
            }
        }
    }

    #[test]
    fn masks_that_are_damaged_few_or_of_another_vector_are_refused() {
        let (group, own) = (Group::rsa_2048(), label("w"));
        let masker = masker(&group, 5, Side::Node);
        let one = masks(&masker, &own, 1);
        let packing = Packing::new(Modulus::Bits32, 3);
        let refused = |elements: &[u8], masks: &Masks| encrypt(&group, &packing, &own, elements, masks).unwrap_err();
        assert_eq!(refused(&[0; 61 * 4], &one), Problem::MasksMissing { got: 1, needed: 2 });
        assert_eq!(refused(&[0; 4], &masks_of(&masker, "b")), Problem::OtherMasks);
        assert!(matches!(refused(&[0; 5], &one), Problem::Common(_)));
        let stored = one.to_bytes();
        for wrong in [&stored[..31], &stored[..100], &[]] {
            assert_eq!(Masks::from_bytes(&group, wrong).err(), Some(Problem::StoredMasks));
        }
        let mut above = stored.clone();
        above[32..64].fill(255);
        assert_eq!(Masks::from_bytes(&group, &above).err(), Some(Problem::StoredMasks));
        let mut other = one;
        assert_eq!(masker.extend(&label("b"), &mut other, 2, ONE, &|| true), Err(Problem::OtherMasks));
    }

    fn masks_of(masker: &Masker, name: &str) -> Masks {
        masks(masker, &label(name), 1)
    }

    #[test]
    fn ciphertexts_outside_the_group_or_too_few_change_nothing() {
        let (group, label) = (Group::rsa_2048(), label("w"));
        let packing = Packing::new(Modulus::Bits32, 2);
        let mut product = Product::new(group.clone(), packing, 100);
        let good = encrypt(&group, &packing, &label, &[1; 400], &masks(&masker(&group, 9, Side::Node), &label, 2)).unwrap();
        assert_eq!(good.len(), 2 * ELEMENT_BYTES);
        let mut above = good.clone();
        above[ELEMENT_BYTES..].fill(255);
        let mut zero = good.clone();
        zero[..ELEMENT_BYTES].fill(0);
        let mut factor = zero.clone();
        factor[ELEMENT_BYTES / 2..ELEMENT_BYTES].copy_from_slice(group.modulus().as_ref().to_be_bytes().as_ref());
        for wrong in [&zero, &factor, &good[..ELEMENT_BYTES], &good[..700], &above, &[good.clone(), good.clone()].concat()] {
            assert!(product.multiply(wrong).is_none());
        }
        product.multiply(&good).unwrap();
        let opened = product.aggregate(&label, &masks(&masker(&group, 9, Side::Researcher), &label, 2));
        // One node of two, so that its flips are still there; the wrong ones left no trace.
        assert_eq!(opened.unwrap(), [1, 1, 1, 129].repeat(100));
        let wrong_key = masks(&masker(&group, 8, Side::Researcher), &label, 2);
        assert_eq!(product.aggregate(&label, &wrong_key), Err(Problem::DoesNotBelong));
    }
}
