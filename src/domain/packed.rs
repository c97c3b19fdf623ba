//! Numbers in the buffer that they came in.

use std::ops::Range;

use bytes::Bytes;

use super::matrix::{ElementType, Values, first_other};

/// Little-endian floats, one after another, not aligned. They share their buffer, that of a message for one, and are cheap to clone:
/// the rows of a training are not copied before they are stored.
#[derive(Clone, Debug)]
pub struct Packed {
    bytes: Bytes,
    element_type: ElementType,
}

/// Floats whose buffer is shared from now on.
struct Floats<T>(Vec<T>);

impl<T: bytemuck::Pod> AsRef<[u8]> for Floats<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Packed {
    /// `None` where the bytes are no whole number of elements.
    pub fn new(bytes: Bytes, element_type: ElementType) -> Option<Self> {
        bytes.len().is_multiple_of(element_type.size_bytes()).then_some(Self { bytes, element_type })
    }

    /// The same numbers in a buffer of their own: where they lie, but for a part of somebody else's, which may be much larger.
    pub fn from_values(values: Values) -> Self {
        match values {
            Values::F32(values) => {
                Self { bytes: Bytes::from_owner(Floats(values)), element_type: ElementType::Float32 }
            }
            Values::F64(values) => {
                Self { bytes: Bytes::from_owner(Floats(values)), element_type: ElementType::Float64 }
            }
            Values::Packed(packed) => {
                Self { bytes: Bytes::copy_from_slice(&packed.bytes), element_type: packed.element_type }
            }
        }
    }

    /// The bytes of all of them.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The type of each.
    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.element_type.size_bytes()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One of them, widened (exactly).
    pub fn get(&self, index: usize) -> f64 {
        match self.element_type {
            ElementType::Float32 => f32::from_le_bytes(self.bytes.as_chunks().0[index]).into(),
            ElementType::Float64 => f64::from_le_bytes(self.bytes.as_chunks().0[index]),
        }
    }

    /// Some of them, where they lie.
    pub fn part(&self, places: Range<usize>) -> Self {
        let size = self.element_type.size_bytes();
        Self { bytes: self.bytes.slice(places.start * size..places.end * size), element_type: self.element_type }
    }

    /// A copy of their own, in another type; rounded to nearest where it is narrower.
    pub fn to_element_type(&self, element_type: ElementType) -> Values {
        match (self.element_type, element_type) {
            (ElementType::Float32, ElementType::Float32) => Values::F32(self.f32s().collect()),
            (ElementType::Float32, ElementType::Float64) => Values::F64(self.f32s().map(f64::from).collect()),
            (ElementType::Float64, ElementType::Float32) => {
                Values::F32(self.f64s().map(|value| value as f32).collect())
            }
            (ElementType::Float64, ElementType::Float64) => Values::F64(self.f64s().collect()),
        }
    }

    /// The first number that is NaN or infinite, were all of them held as `element_type`.
    pub fn first_not_finite(&self, element_type: ElementType) -> Option<usize> {
        match (self.element_type, element_type) {
            (ElementType::Float32, _) => first_other(self.bytes.as_chunks().0, |it| f32::from_le_bytes(it).is_finite()),
            (ElementType::Float64, ElementType::Float32) => {
                first_other(self.bytes.as_chunks().0, |it| (f64::from_le_bytes(it) as f32).is_finite())
            }
            (ElementType::Float64, ElementType::Float64) => {
                first_other(self.bytes.as_chunks().0, |it| f64::from_le_bytes(it).is_finite())
            }
        }
    }

    fn f32s(&self) -> impl Iterator<Item = f32> + '_ {
        self.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes))
    }

    fn f64s(&self) -> impl Iterator<Item = f64> + '_ {
        self.bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same numbers, aligned and one byte off.
    fn packed(values: &Values) -> [Packed; 2] {
        let off = Bytes::from([&[7], values.as_bytes()].concat()).slice(1..);
        [Packed::from_values(values.clone()), Packed::new(off, values.element_type()).unwrap()]
    }

    #[test]
    fn packed_numbers_are_what_they_were_wherever_they_lie() {
        let numbers = [0.1, -2.5, 1e300, f64::MIN_POSITIVE, -0.0];
        for values in [Values::F64(numbers.to_vec()), Values::F32(numbers.map(|x| x as f32).to_vec())] {
            for packed in packed(&values) {
                assert_eq!(packed.len(), values.len());
                assert!((0..values.len()).all(|index| packed.get(index).to_bits() == values.get(index).to_bits()));
                for element_type in [ElementType::Float32, ElementType::Float64] {
                    let expected = values.clone().into_element_type(element_type);
                    assert_eq!(packed.to_element_type(element_type).as_bytes(), expected.as_bytes());
                    assert_eq!(packed.first_not_finite(element_type), values.first_not_finite(element_type));
                    let part = values.slice(1..3).into_element_type(element_type);
                    assert_eq!(packed.part(1..3).to_element_type(element_type).as_bytes(), part.as_bytes());
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_no_whole_floats_are_none() {
        assert!(Packed::new(Bytes::from_static(&[0; 6]), ElementType::Float32).is_none());
        assert!(Packed::new(Bytes::from_static(&[0; 12]), ElementType::Float64).is_none());
        assert_eq!(Packed::new(Bytes::new(), ElementType::Float64).map(|it| it.len()), Some(0));
    }

    #[test]
    fn a_part_of_a_message_that_is_kept_lets_the_message_go() {
        let message = Bytes::from(vec![0; 1 << 20]);
        let part = Packed::new(message.slice(16..24), ElementType::Float64).unwrap();
        let kept = Packed::from_values(Values::Packed(part));
        assert!(message.is_unique() && kept.get(0) == 0.0);
    }

    #[test]
    fn values_that_are_shared_stay_where_they_are() {
        let values = Values::F32(vec![1.0; 1_000]);
        let at = values.as_bytes().as_ptr();
        let counted = allocation_counter::measure(|| {
            let packed = Packed::from_values(values);
            assert_eq!(packed.clone().bytes().as_ptr(), at);
        });
        assert!(counted.bytes_total < 200, "{counted:?}");
    }
}
