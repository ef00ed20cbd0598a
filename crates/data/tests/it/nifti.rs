//! NIfTI files: a real head, and volumes of every kind written here after the standard's header.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use data::nifti::{Header, NiftiError, read, read_file};
use data::{DataError, refusal};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::Folder;

pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// A NIfTI-1 file under construction.
pub(crate) struct File {
    bytes: Vec<u8>,
    is_big: bool,
}

impl File {
    pub(crate) fn new(size: [i16; 3], code: i16, bits: i16, is_big: bool) -> Self {
        let mut file = Self { bytes: vec![0; 352], is_big };
        file.put(0, &348_i32.to_le_bytes());
        file.put(40, &3_i16.to_le_bytes());
        for (at, side) in size.into_iter().enumerate() {
            file.put(42 + 2 * at, &side.to_le_bytes());
        }
        file.put(70, &code.to_le_bytes());
        file.put(72, &bits.to_le_bytes());
        for (at, mm) in [1.0_f32, 2.0, 3.0, 4.0].into_iter().enumerate() {
            file.put(76 + 4 * at, &mm.to_le_bytes());
        }
        file.put(108, &352.0_f32.to_le_bytes());
        file.bytes[344..348].copy_from_slice(b"n+1\0");
        file
    }

    /// Writes a number, given in little-endian order.
    fn put(&mut self, at: usize, number: &[u8]) {
        let mut number = number.to_vec();
        if self.is_big {
            number.reverse();
        }
        self.bytes[at..at + number.len()].copy_from_slice(&number);
    }

    pub(crate) fn with(mut self, at: usize, number: &[u8]) -> Self {
        self.put(at, number);
        self
    }

    /// Appends numbers, given in little-endian order.
    pub(crate) fn values(mut self, numbers: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
        for mut number in numbers {
            if self.is_big {
                number.reverse();
            }
            self.bytes.extend(number);
        }
        self.bytes
    }
}

pub(crate) fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A small volume of whole numbers.
pub(crate) fn small(size: [i16; 3]) -> Vec<u8> {
    let count = size.iter().product::<i16>();
    File::new(size, 4, 16, false).values((0..count).map(|value| value.to_le_bytes().to_vec()))
}

#[test]
fn a_real_head_is_read_with_its_place_and_moments() {
    let head = read_file(&testdata("nifti/SYN-C002_T1.nii.gz")).unwrap();
    let mask = read_file(&testdata("nifti/SYN-C002_label.nii.gz")).unwrap();
    assert_eq!((head.size(), head.spacing_mm()), ([48, 60, 48], [4.0, 4.0, 4.0]));
    assert_eq!(head.orientation(), "RAS");
    let inside: Vec<f64> = head
        .values()
        .iter()
        .zip(mask.values())
        .filter(|(_, mask)| **mask == 1.0)
        .map(|(value, _)| f64::from(*value))
        .collect();
    // reference.json, nifti.subjects, computed by nibabel and NumPy.
    assert_eq!(inside.len(), 25_856);
    let mean = inside.iter().sum::<f64>() / 25_856.0;
    let variance = inside.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / 25_855.0;
    assert!((mean - 387.693_107_982_673_27).abs() < 1e-9, "{mean}");
    assert!((variance / 11_651.641_609_431_155 - 1.0).abs() < 1e-9, "{variance}");
}

#[test]
fn every_number_type_is_read_in_both_byte_orders() {
    macro_rules! check {
        ($code:expr, $type:ty, $low:expr, $read:expr) => {
            for is_big in [false, true] {
                let numbers: [$type; 2] = [$low, <$type>::HUNDRED];
                let file = File::new([2, 1, 1], $code, <$type>::BITS_OF, is_big);
                let bytes = file.values(numbers.map(|number| number.to_le_bytes().to_vec()));
                for bytes in [packed(&bytes), bytes] {
                    assert_eq!(read(bytes.as_slice()).unwrap().values(), [$read, 100.0], "{} {is_big}", $code);
                }
            }
        };
    }
    trait Bits {
        const BITS_OF: i16;
        const HUNDRED: Self;
    }
    macro_rules! bits {
        ($($type:ty: $bits:expr, $hundred:expr);*) => {
            $(impl Bits for $type { const BITS_OF: i16 = $bits; const HUNDRED: Self = $hundred; })*
        };
    }
    bits!(u8: 8, 100; i8: 8, 100; i16: 16, 100; u16: 16, 100; i32: 32, 100; u32: 32, 100; i64: 64, 100; u64: 64, 100; f32: 32, 100.0; f64: 64, 100.0);
    check!(2, u8, 200, 200.0);
    check!(256, i8, -5, -5.0);
    check!(4, i16, -300, -300.0);
    check!(512, u16, 65_000, 65_000.0);
    check!(8, i32, -70_000, -70_000.0);
    check!(768, u32, 4_000_000_000, 4_000_000_000.0);
    check!(1024, i64, -5, -5.0);
    check!(1280, u64, 5, 5.0);
    check!(16, f32, -0.5, -0.5);
    check!(64, f64, 0.25, 0.25);
}

#[test]
fn slope_and_intercept_are_applied_unless_the_slope_is_zero() {
    let scaled = |slope: f32| {
        let file = File::new([2, 1, 1], 2, 8, false).with(112, &slope.to_le_bytes()).with(116, &(-1.0_f32).to_le_bytes());
        read(file.values([vec![4], vec![8]]).as_slice()).unwrap().values().to_vec()
    };
    assert_eq!(scaled(0.5), [1.0, 3.0]);
    assert_eq!(scaled(0.0), [4.0, 8.0]);
    assert_eq!(scaled(f32::NAN), [4.0, 8.0]);
}

#[test]
fn the_place_comes_from_sform_then_qform_then_spacing() {
    let header = |file: File| Header::read(&mut file.values([]).as_slice()).unwrap().affine;
    let file = || File::new([1, 1, 1], 2, 8, true);
    assert_eq!(header(file()), [[2.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 4.0, 0.0]]);
    // Half a turn about the third axis (b = c = 0, d = 1), and the third axis turned by qfac.
    let quaternion = || {
        let turned = file().with(252, &1_i16.to_le_bytes()).with(264, &1.0_f32.to_le_bytes());
        turned.with(76, &(-1.0_f32).to_le_bytes()).with(268, &7.0_f32.to_le_bytes())
    };
    assert_eq!(header(quaternion()), [[-2.0, 0.0, 0.0, 7.0], [0.0, -3.0, 0.0, 0.0], [0.0, 0.0, -4.0, 0.0]]);
    let mut both = quaternion().with(254, &1_i16.to_le_bytes());
    for (at, number) in [0.0_f32, 5.0, 0.0, 1.0, 5.0, 0.0, 0.0, 2.0, 0.0, 0.0, 5.0, 3.0].into_iter().enumerate() {
        both.put(280 + 4 * at, &number.to_le_bytes());
    }
    assert_eq!(header(both), [[0.0, 5.0, 0.0, 1.0], [5.0, 0.0, 0.0, 2.0], [0.0, 0.0, 5.0, 3.0]]);
    // Micrometres.
    let mut small = file();
    small.bytes[123] = 3;
    assert!((header(small)[0][0] - 0.002).abs() < 1e-12);
}

#[test]
fn the_second_version_is_read() {
    let mut bytes = vec![0; 544];
    bytes[..4].copy_from_slice(&540_i32.to_le_bytes());
    bytes[4..8].copy_from_slice(b"n+2\0");
    bytes[12..14].copy_from_slice(&16_i16.to_le_bytes());
    for (at, size) in [3_i64, 2, 1, 1].into_iter().enumerate() {
        bytes[16 + 8 * at..24 + 8 * at].copy_from_slice(&size.to_le_bytes());
    }
    bytes[112..120].copy_from_slice(&0.5_f64.to_le_bytes());
    bytes[168..176].copy_from_slice(&544_i64.to_le_bytes());
    bytes.extend([1.5_f32, -2.5].iter().flat_map(|value| value.to_le_bytes()));
    let volume = read(bytes.as_slice()).unwrap();
    assert_eq!((volume.values(), volume.spacing_mm()), (&[1.5, -2.5][..], [0.5, 1.0, 1.0]));
}

#[test]
fn a_truncated_gzip_file_is_named_on_the_node_and_not_outside() {
    let folder = Folder::new();
    let whole = fs::read(testdata("nifti/SYN-C002_label.nii.gz")).unwrap();
    let path = folder.write("secret-patient.nii.gz", &whole[..whole.len() / 2]);
    let error = read_file(&path).unwrap_err();
    assert!(matches!(error, DataError::Nifti { source: NiftiError::Truncated { part: "values", .. }, .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("secret-patient.nii.gz: the file ends too early: expected "), "{message}");
    let refusal = refusal(&error);
    assert_eq!(refusal.code, protocol::RefusalCode::DatasetUnreadable);
    assert!(!refusal.sentence.contains("secret") && !refusal.sentence.contains('/'), "{refusal:?}");
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let small = small([3, 2, 2]);
    let mut flipped = packed(&small);
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    assert!(matches!(read(flipped.as_slice()), Err(NiftiError::Damaged(_))));
    assert!(matches!(read(&small[..200]), Err(NiftiError::Truncated { part: "header", .. })));
    assert!(matches!(read(&small[..360]), Err(NiftiError::Truncated { part: "values", expected: 24, found: 8 })));
    assert!(matches!(read(&b"PNG and so on"[..]), Err(NiftiError::NotNifti(_))));
    let with = |at, number: &[u8]| read(File::new([1, 1, 1], 2, 8, false).with(at, number).values([vec![1]]).as_slice());
    assert!(matches!(with(70, &32_i16.to_le_bytes()), Err(NiftiError::Type { code: 32, name: "complex numbers" })));
    assert!(matches!(with(42, &(-3_i16).to_le_bytes()), Err(NiftiError::Size([-3, 1, 1]))));
    assert!(matches!(with(40, &9_i16.to_le_bytes()), Err(NiftiError::Dimensions(_))));
    assert!(matches!(with(108, &10.0_f32.to_le_bytes()), Err(NiftiError::Offset(_))));
    assert!(matches!(with(344, b"\x001in"), Err(NiftiError::Pair | NiftiError::NotNifti(348))));
    let four = File::new([1, 1, 1], 2, 8, false).with(40, &4_i16.to_le_bytes()).with(48, &20_i16.to_le_bytes());
    assert!(matches!(read(four.values([vec![1]]).as_slice()), Err(NiftiError::Dimensions(sizes)) if sizes == [1, 1, 1, 20]));
}

#[test]
fn a_header_that_promises_too_much_takes_no_memory() {
    let side = i16::MAX.to_le_bytes();
    let huge = File::new([600, 600, 600], 64, 64, false).values([vec![0; 8]]);
    assert!(matches!(read(packed(&huge).as_slice()), Err(NiftiError::Truncated { found: 8, .. })));
    let more = File::new([1, 1, 1], 64, 64, false).with(42, &side).with(44, &side).with(46, &side).values([]);
    assert!(matches!(read(more.as_slice()), Err(NiftiError::Size(_))));
}

proptest::proptest! {
    #[test]
    fn random_changes_never_panic(at in 0_usize..360, byte: u8, cut in 0_usize..400, is_packed: bool) {
        let mut bytes = small([3, 2, 2]);
        bytes[at] = byte;
        bytes.truncate(bytes.len().min(cut + 300));
        let bytes = if is_packed { packed(&bytes) } else { bytes };
        let _ = read(bytes.as_slice());
    }
}
