//! The calls of an execution, site by site: what most of a report consists of.

/// A site that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The site's number, the same in every guest with the same kernel build.
    pub site: u64,
    /// Number of its calls.
    pub count: u32,
    /// Position of its first call among all calls of the execution, from 1.
    pub first_sequence: u32,
}

/// A hit in a message: its numbers in that order, each little-endian.
type Packed = [u8; 16];

impl Hit {
    fn pack(self) -> Packed {
        let mut packed = [0; 16];
        packed[..8].copy_from_slice(&self.site.to_le_bytes());
        packed[8..12].copy_from_slice(&self.count.to_le_bytes());
        packed[12..].copy_from_slice(&self.first_sequence.to_le_bytes());
        packed
    }

    fn unpack(packed: Packed) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = packed;
        Self {
            site: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            count: u32::from_le_bytes([i, j, k, l]),
            first_sequence: u32::from_le_bytes([m, n, o, p]),
        }
    }
}

/// Hits as one run of bytes: number by number, writing one took 120 instructions.
pub(crate) mod packed {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error};

    use super::{Hit, Packed};

    pub(crate) fn serialize<S: Serializer>(hits: &[Hit], serializer: S) -> Result<S::Ok, S::Error> {
        let packed: Vec<Packed> = hits.iter().map(|hit| hit.pack()).collect();
        serializer.serialize_bytes(packed.as_flattened())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Hit>, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        let (packed, rest) = bytes.as_chunks();
        if !rest.is_empty() {
            return Err(D::Error::custom("a hit is cut short"));
        }
        Ok(packed.iter().copied().map(Hit::unpack).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Hits(#[serde(with = "packed")] Vec<Hit>);

    #[test]
    fn hits_come_out_as_they_went_in_unless_one_is_cut_short() {
        let hit = |number: u32| Hit { site: u64::MAX - u64::from(number), count: number, first_sequence: !number };
        let hits = Hits((0..300).map(hit).collect());
        let bytes = postcard::to_stdvec(&hits).unwrap();
        assert_eq!(bytes.len(), 2 + 300 * 16);
        assert_eq!(postcard::from_bytes::<Hits>(&bytes).unwrap(), hits);
        assert_eq!(postcard::from_bytes::<Hits>(&[0]).unwrap(), Hits(Vec::new()));
        let short = [&[15][..], &bytes[2..17]].concat();
        assert!(postcard::from_bytes::<Hits>(&short).is_err());
    }
}
