//! The columns that other programs write, as integers, reals and texts.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{Array, ArrayRef, StringArray};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_cast::cast::{CastOptions, cast_with_options};
use arrow_cast::display::FormatOptions;
use arrow_schema::{ArrowError, DataType, TimeUnit};
use protocol::ColumnKind;

use crate::evaluate::finite;

/// What a type of Arrow becomes: truths are 1 and 0, dates and times are texts as ISO 8601 writes them, decimals without fraction
/// are integers, a column of nothing is real. `None` for nested, binary and other types.
pub(super) fn kind(found: &DataType) -> Option<ColumnKind> {
    match found {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Decimal32(_, 0)
        | DataType::Decimal64(_, 0)
        | DataType::Decimal128(..=18, 0) => Some(ColumnKind::Integer),
        DataType::Null
        | DataType::Float16
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Some(ColumnKind::Real),
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(..) => Some(ColumnKind::Text),
        DataType::Dictionary(_, values) => kind(values),
        _ => None,
    }
}

/// Converts a column; what does not fit is an error. Reals that are not finite and blank texts become missing, as in CSV files.
pub(super) fn column(column: &ArrayRef, kind: ColumnKind) -> Result<ArrayRef, ArrowError> {
    let wanted = match kind {
        ColumnKind::Integer => DataType::Int64,
        ColumnKind::Real => DataType::Float64,
        ColumnKind::Text => DataType::Utf8,
    };
    let converted = if *column.data_type() == wanted {
        Arc::clone(column)
    } else {
        let options = CastOptions { safe: false, format_options: FormatOptions::default() };
        cast_with_options(&at_offset_zero(column), &wanted, &options)?
    };
    Ok(match kind {
        ColumnKind::Integer => converted,
        ColumnKind::Real => Arc::new(finite(converted.as_primitive::<Float64Type>().clone())),
        ColumnKind::Text => Arc::new(without_blanks(converted.as_string::<i32>().clone())),
    })
}

/// Times that are the same everywhere, in the one time zone whose rules need no list: Parquet holds them as in UTC.
fn at_offset_zero(column: &ArrayRef) -> ArrayRef {
    const ZONE: &str = "+00:00";
    let DataType::Timestamp(unit, Some(_)) = column.data_type() else { return Arc::clone(column) };
    match unit {
        TimeUnit::Second => Arc::new(column.as_primitive::<TimestampSecondType>().clone().with_timezone(ZONE)),
        TimeUnit::Millisecond => Arc::new(column.as_primitive::<TimestampMillisecondType>().clone().with_timezone(ZONE)),
        TimeUnit::Microsecond => Arc::new(column.as_primitive::<TimestampMicrosecondType>().clone().with_timezone(ZONE)),
        TimeUnit::Nanosecond => Arc::new(column.as_primitive::<TimestampNanosecondType>().clone().with_timezone(ZONE)),
    }
}

fn without_blanks(texts: StringArray) -> StringArray {
    let is_blank = |row: usize| texts.value(row).trim_ascii().is_empty();
    if !(0..texts.len()).any(|row| texts.is_valid(row) && is_blank(row)) {
        return texts;
    }
    let filled = NullBuffer::new(BooleanBuffer::collect_bool(texts.len(), |row| !is_blank(row)));
    let (offsets, values, nulls) = texts.into_parts();
    StringArray::new(offsets, values, NullBuffer::union(nulls.as_ref(), Some(&filled)))
}
