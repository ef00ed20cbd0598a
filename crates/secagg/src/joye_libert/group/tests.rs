use crypto_bigint::Random;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;

/// As published (RSA Factoring Challenge, RSA-2048): 617 digits, their sum is 2738.
const PUBLISHED: &str = concat!(
    "2519590847565789349402718324004839857142928212620403202777713783604366202070759555626401852588078440691",
    "8290641249515082189298559149176184502808489120072844992687392807287776735971418347270261896375014971824",
    "6911650776133798590957000973304597488084284017974291006424586918171951187461215151726546322822168699875",
    "4918242243363725908514186546204357679842338718477444792073993423658482382428119816381501067481045166037",
    "7306056201619676256133844143603833904414952634432190114657544454178424020924616515723350778707749817125",
    "772467962926386356373289912154831438167899885040445364023527381951378636564391212010397122822120720357",
);

fn square(group: &Group) -> Odd<Full> {
    let (low, high) = group.modulus().as_ref().widening_square();
    Odd::new(low.concat(&high)).unwrap()
}

fn number(group: &Group, element: &Element) -> Full {
    Full::from_be_slice(&group.bytes(element))
}

/// Elements where carries and reductions are at their ends, and random ones.
fn elements(group: &Group) -> Vec<Full> {
    let modulus = group.modulus().as_ref().resize::<64>();
    let most = square(group).as_ref().wrapping_sub(&Full::ONE);
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let mut all = vec![Full::ZERO, Full::ONE, Full::from_u32(2), modulus, modulus.wrapping_sub(&Full::ONE)];
    all.extend([modulus.wrapping_add(&Full::ONE), most, most.wrapping_sub(&modulus), Full::ONE.shl_vartime(2048)]);
    all.extend((0..4).map(|_| Full::random_from_rng(&mut rng).rem_vartime(square(group).as_nz_ref())));
    all
}

#[test]
fn the_default_modulus_is_the_published_one() {
    assert_eq!(PUBLISHED.len(), 617);
    assert_eq!(PUBLISHED.bytes().map(|digit| u32::from(digit - b'0')).sum::<u32>(), 2738);
    assert!(Group::from_text(PUBLISHED).unwrap() == Group::rsa_2048());
    let spaced = format!("  0x{}\n{}\n", &RSA_2048[..256], RSA_2048[256..].to_uppercase());
    assert!(Group::from_text(&spaced).unwrap() == Group::rsa_2048());
}

#[test]
fn numbers_that_are_no_modulus_are_refused_with_the_reason() {
    let refused = |text: &str| Group::from_text(text).unwrap_err();
    for text in ["", " ", "0x", "12a", "-5", "1.0", &"1".repeat(5000)] {
        assert_eq!(refused(text), ModulusProblem::NotANumber, "{text}");
    }
    assert_eq!(refused("35"), ModulusProblem::Size { bits: 6 });
    assert_eq!(refused(&"9".repeat(618)), ModulusProblem::Size { bits: 2049 });
    let hexadecimal = |number: &Half| format!("{number:x}");
    let top = Half::ONE.shl_vartime(2047);
    assert_eq!(refused(&format!("0x{}", hexadecimal(&top))), ModulusProblem::SmallFactor { factor: 2 });
    // 2^2047 + 1 is divisible by 3.
    assert_eq!(
        refused(&format!("0x{}", hexadecimal(&top.wrapping_add(&Half::ONE)))),
        ModulusProblem::SmallFactor { factor: 3 }
    );
    // A square without small factors.
    let root = Uint::<16>::MAX.wrapping_sub(&Uint::from_u32(104));
    let (low, high) = root.widening_square();
    let perfect: Half = low.concat(&high);
    assert_eq!(refused(&format!("0x{}", hexadecimal(&perfect))), ModulusProblem::PerfectPower { exponent: 2 });
    // The prime of the 2048-bit MODP group (RFC 3526, §3).
    let prime = concat!(
        "0xFFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD",
        "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
        "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F",
        "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
        "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510",
        "15728E5A8AACAA68FFFFFFFFFFFFFFFF",
    );
    assert_eq!(refused(prime), ModulusProblem::Prime);
}

#[test]
fn halves_multiply_as_whole_numbers_do() {
    let group = Group::rsa_2048();
    let whole = FixedMontyParams::new(square(&group));
    for a in elements(&group) {
        let element = group.element(&a.to_be_bytes().as_ref().try_into().unwrap()).unwrap();
        assert_eq!(number(&group, &element), a);
        assert_eq!(number(&group, &group.leave(&group.enter(&element))), a);
        let of_a = FixedMontyForm::new(&a, &whole);
        let squared = group.leave(&group.square(&group.enter(&element)));
        assert_eq!(number(&group, &squared), of_a.square().retrieve());
        for b in elements(&group) {
            let other = group.element(&b.to_be_bytes().as_ref().try_into().unwrap()).unwrap();
            let product = group.leave(&group.multiply(&group.enter(&element), &group.enter(&other)));
            assert_eq!(number(&group, &product), of_a.mul(&FixedMontyForm::new(&b, &whole)).retrieve());
        }
    }
    let bytes: [u8; ELEMENT_BYTES] = square(&group).as_ref().to_be_bytes().as_ref().try_into().unwrap();
    assert!(group.element(&bytes).is_none(), "N² itself is not below N²");
}

#[test]
fn powers_of_full_width_are_those_of_the_library() {
    let group = Group::rsa_2048();
    let whole = FixedMontyParams::new(square(&group));
    let base = elements(&group).pop().unwrap();
    let exponent = Wide::random_from_rng(&mut ChaCha20Rng::seed_from_u64(8));
    for bits in [4224, 4241, 4288] {
        let value = exponent.shr_vartime(Wide::BITS - bits);
        let entered = group.enter(&group.element(&base.to_be_bytes().as_ref().try_into().unwrap()).unwrap());
        let power = group.power(&entered, &Exponent { value, bits });
        let expected = FixedMontyForm::new(&base, &whole).pow_vartime(&value).retrieve();
        assert_eq!(number(&group, &group.leave(&power)), expected, "{bits} bits");
    }
}

#[test]
fn all_are_inverted_at_once_unless_one_shares_a_factor_with_the_modulus() {
    let group = Group::rsa_2048();
    let enter = |number: &Full| group.enter(&group.element(&number.to_be_bytes().as_ref().try_into().unwrap()).unwrap());
    let originals: Vec<_> = elements(&group)[9..].iter().map(enter).collect();
    let mut inverses = originals.clone();
    group.invert_all(&mut inverses).unwrap();
    for (a, b) in originals.iter().zip(&inverses) {
        assert_eq!(number(&group, &group.leave(&group.multiply(a, b))), Full::ONE);
    }
    inverses.push(enter(&group.modulus().as_ref().resize::<64>()));
    assert!(group.invert_all(&mut inverses).is_none());
    assert!(group.invert_all(&mut []).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn small_powers_are_repeated_products(exponent in 0_u64..600, bits in 10_u32..64) {
        let group = Group::rsa_2048();
        let base = group.enter(&group.reduce_wide(&(Half::from_u32(3), Full::MAX)));
        let power = group.power(&base, &Exponent { value: Wide::from_u64(exponent), bits });
        let expected = (0..exponent).fold(group.one(), |product, _| group.multiply(&product, &base));
        prop_assert_eq!(number(&group, &group.leave(&power)), number(&group, &group.leave(&expected)));
    }
}
