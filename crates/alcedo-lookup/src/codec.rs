//! Decompression of data pages, bounded by the size that the page header declares and by [`Limits`].
//!
//! The parquet crate's codecs are not public, and those for gzip, brotli and framed LZ4 would inflate without a bound.

use std::cell::RefCell;
use std::io::Read;

use crate::error::Error;

/// How a gzip member starts.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// How a stream of snappy's frames starts (<https://github.com/google/snappy/blob/main/framing_format.txt>).
const SNAPPY_FRAME_MAGIC: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// Parquet's `CompressionCodec`
/// (<https://github.com/apache/parquet-format/blob/master/Compression.md>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Uncompressed,
    Snappy,
    Gzip,
    Brotli,
    /// The deprecated LZ4: Hadoop's framing, though some writers put a frame or a raw block there.
    Lz4Hadoop,
    Zstd,
    Lz4Raw,
}

impl Codec {
    pub(crate) fn from_thrift(code: i32) -> Result<Self, Error> {
        Ok(match code {
            0 => Self::Uncompressed,
            1 => Self::Snappy,
            2 => Self::Gzip,
            3 => return Err(Error::Unsupported("compression codec LZO".to_owned())),
            4 => Self::Brotli,
            5 => Self::Lz4Hadoop,
            6 => Self::Zstd,
            7 => Self::Lz4Raw,
            other => return Err(Error::corrupt(format!("compression codec {other} does not exist"))),
        })
    }

    pub(crate) fn to_thrift(self) -> i32 {
        match self {
            Self::Uncompressed => 0,
            Self::Snappy => 1,
            Self::Gzip => 2,
            Self::Brotli => 4,
            Self::Lz4Hadoop => 5,
            Self::Zstd => 6,
            Self::Lz4Raw => 7,
        }
    }

    /// Decompresses `input` into exactly `output`, whatever is there. Nothing is reserved where the codec is a usual
    /// one.
    ///
    /// # Errors
    /// As of [`Codec::decompress`].
    pub(crate) fn decompress_into(self, input: &[u8], output: &mut [u8]) -> Result<(), Error> {
        let done = match self {
            Self::Snappy if snap::raw::decompress_len(input).is_ok_and(|declared| declared == output.len()) => {
                snap::raw::Decoder::new().decompress(input, output).ok()
            }
            Self::Zstd if !input.is_empty() => zstd_into(input, output).ok(),
            Self::Lz4Raw if !input.is_empty() => lz4_flex::block::decompress_into(input, output).ok(),
            _ => None,
        };
        if done != Some(output.len()) {
            // Another framing, or damage, which is put in words there.
            output.copy_from_slice(&self.decompress(input, output.len())?);
        }
        Ok(())
    }

    /// Decompresses `input` into exactly `size` bytes.
    ///
    /// # Errors
    /// The input is damaged, or inflates to another size. Memory stays below `size` plus a codec's window.
    pub(crate) fn decompress(self, input: &[u8], size: usize) -> Result<Vec<u8>, Error> {
        if input.is_empty() && size == 0 {
            // Some writers compress nothing to nothing, whatever the codec makes of it.
            return Ok(Vec::new());
        }
        let output = match self {
            Self::Uncompressed => input.to_vec(),
            Self::Snappy => snappy(input, size)?,
            Self::Zstd => zstd::bulk::decompress(input, size).map_err(|e| damaged("zstd", &e))?,
            Self::Lz4Raw => lz4_flex::block::decompress(input, size).map_err(|e| damaged("lz4_raw", &e))?,
            Self::Gzip => gzip(input, size)?,
            Self::Brotli => read_bounded("brotli", brotli::Decompressor::new(input, 4096), size)?,
            Self::Lz4Hadoop => lz4_hadoop(input, size)?,
        };
        if output.len() != size {
            return Err(Error::corrupt(format!("a page inflates to {} bytes, its header says {size}", output.len())));
        }
        Ok(output)
    }
}

thread_local! {
    /// A context takes 100 KiB and as long to set up as a small page to inflate.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Decompresses all of zstd's frames; gives how many bytes they are.
fn zstd_into(input: &[u8], output: &mut [u8]) -> std::io::Result<usize> {
    ZSTD.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(zstd::bulk::Decompressor::new()?),
        };
        context.decompress_to_buffer(input, output)
    })
}

fn damaged(codec: &str, error: &dyn std::fmt::Display) -> Error {
    Error::corrupt(format!("{codec} data: {error}"))
}

/// Whether these are snappy's frames. No raw block starts like them, but its first bytes could.
pub(crate) fn is_framed(input: &[u8]) -> bool {
    input.starts_with(SNAPPY_FRAME_MAGIC)
}

/// A raw block, as Parquet says; Hadoop's own codec frames such blocks, and some writers put snappy's frames here.
fn snappy(input: &[u8], size: usize) -> Result<Vec<u8>, Error> {
    let block = |input: &[u8], most: usize| {
        let declared = snap::raw::decompress_len(input).ok().filter(|declared| *declared <= most)?;
        let decoded = snap::raw::Decoder::new().decompress_vec(input).ok()?;
        (decoded.len() == declared).then_some(decoded)
    };
    if let Some(output) = block(input, size).filter(|output| output.len() == size) {
        return Ok(output);
    }
    if is_framed(input) {
        return read_bounded("snappy", snap::read::FrameDecoder::new(input), size);
    }
    if let Some(output) = hadoop_blocks(input, size, block) {
        return Ok(output);
    }
    let declared = snap::raw::decompress_len(input).map_err(|e| damaged("snappy", &e))?;
    if declared != size {
        return Err(Error::corrupt(format!("snappy data declares {declared} bytes, the page header says {size}")));
    }
    snap::raw::Decoder::new().decompress_vec(input).map_err(|e| damaged("snappy", &e))
}

/// Members of gzip (RFC 1952); some writers leave out its frame and put zlib's (RFC 1950) or a bare stream here.
fn gzip(input: &[u8], size: usize) -> Result<Vec<u8>, Error> {
    if input.starts_with(GZIP_MAGIC) {
        return read_bounded("gzip", flate2::bufread::MultiGzDecoder::new(input), size);
    }
    let zlib = read_bounded("zlib", flate2::bufread::ZlibDecoder::new(input), size);
    match zlib {
        Ok(output) => Ok(output),
        Err(_) => read_bounded("deflate", flate2::bufread::DeflateDecoder::new(input), size),
    }
}

/// Reads at most one byte more than `size`, so that a bomb is found without being inflated.
fn read_bounded(codec: &str, decoder: impl Read, size: usize) -> Result<Vec<u8>, Error> {
    let mut output = Vec::with_capacity(size);
    decoder.take(size as u64 + 1).read_to_end(&mut output).map_err(|e| damaged(codec, &e))?;
    Ok(output)
}

/// Hadoop's framing is a run of blocks: big-endian decompressed size, then chunks of big-endian compressed size and raw
/// LZ4 until that size is reached. Writers before the format was clarified also wrote LZ4 frames or a bare block here.
fn lz4_hadoop(input: &[u8], size: usize) -> Result<Vec<u8>, Error> {
    if size == 0 {
        return Ok(Vec::new());
    }
    if let Some(output) = hadoop_blocks(input, size, |chunk, most| lz4_flex::block::decompress(chunk, most).ok()) {
        return Ok(output);
    }
    if let Ok(output) = read_bounded("lz4", lz4_flex::frame::FrameDecoder::new(input), size)
        && output.len() == size
    {
        return Ok(output);
    }
    lz4_flex::block::decompress(input, size).map_err(|e| damaged("lz4", &e))
}

/// `decode` takes one chunk and how many bytes it may decode to at most.
fn hadoop_blocks(mut input: &[u8], size: usize, decode: impl Fn(&[u8], usize) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut output = Vec::with_capacity(size);
    while !input.is_empty() {
        let block = be_u32(&mut input)?;
        let end = output.len().checked_add(block).filter(|end| *end <= size)?;
        while output.len() < end {
            let length = be_u32(&mut input)?;
            let chunk = input.get(..length)?;
            input = &input[length..];
            let decoded = decode(chunk, end - output.len())?;
            if decoded.is_empty() {
                return None;
            }
            output.extend_from_slice(&decoded);
        }
    }
    (output.len() == size).then_some(output)
}

fn be_u32(input: &mut &[u8]) -> Option<usize> {
    let (head, rest) = input.split_first_chunk::<4>()?;
    *input = rest;
    Some(u32::from_be_bytes(*head) as usize)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn several_gzip_members_are_one_page_and_bombs_stop_at_the_declared_size() {
        let member = |data: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        };
        let both = [member(b"king"), member(b"fisher")].concat();
        assert_eq!(Codec::Gzip.decompress(&both, 10).unwrap(), b"kingfisher");
        let bomb = member(&vec![0; 64 << 20]);
        let error = Codec::Gzip.decompress(&bomb, 100).unwrap_err();
        assert!(error.to_string().contains("inflates to 101 bytes, its header says 100"), "{error}");
    }

    #[test]
    fn hadoop_lz4_blocks_of_several_chunks_are_read() {
        let (a, b) = (vec![7_u8; 300_000], vec![9_u8; 10]);
        let mut framed = Vec::new();
        framed.extend((a.len() as u32 + b.len() as u32).to_be_bytes());
        for part in [&a, &b] {
            let packed = lz4_flex::block::compress(part);
            framed.extend((packed.len() as u32).to_be_bytes());
            framed.extend(packed);
        }
        let whole = [a, b].concat();
        assert_eq!(Codec::Lz4Hadoop.decompress(&framed, whole.len()).unwrap(), whole);
        let raw = lz4_flex::block::compress(&whole);
        assert_eq!(Codec::Lz4Hadoop.decompress(&raw, whole.len()).unwrap(), whole);
    }

    #[test]
    fn a_wrong_declared_size_is_an_error_in_every_codec() {
        let snappy = snap::raw::Encoder::new().compress_vec(b"kingfisher").unwrap();
        let zstd = zstd::bulk::compress(b"kingfisher", 1).unwrap();
        for (codec, data) in
            [(Codec::Snappy, snappy), (Codec::Zstd, zstd), (Codec::Uncompressed, b"kingfisher".to_vec())]
        {
            assert_eq!(codec.decompress(&data, 10).unwrap(), b"kingfisher");
            assert!(codec.decompress(&data, 9).is_err(), "{codec:?}");
            assert!(codec.decompress(&data, 11).is_err(), "{codec:?}");
        }
    }
}
