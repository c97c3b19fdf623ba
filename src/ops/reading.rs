//! Requests that are read by whoever answers them at once, without the library's stream of messages between: see [`Quick`].

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::{Body as _, Frame, Incoming};
use tonic::Status;

/// gRPC's bytes before a message: whether it is compressed, and how long it is.
pub const PREFIX_BYTES: usize = 5;

/// What answers calls of one method with less around them, where it can.
pub trait Quick: Send + Sync + 'static {
    /// The path of the method.
    fn path(&self) -> &'static str;

    /// The answer to a message, with gRPC's bytes before it. `None` where the call has to go the usual way: it takes long, waits for
    /// something, or is refused.
    fn answer(&self, message: Bytes) -> Option<Bytes>;

    /// A place for a message of so many bytes that begins so. `None` where it has to go the usual way.
    fn gather(&self, beginning: &[u8], length: usize) -> Option<Box<dyn Gathering>>;
}

/// An answer on its way, with gRPC's bytes before it.
pub type Answering = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;

/// A large message that goes to its place piece by piece, as it comes.
pub trait Gathering: Send {
    /// Takes what comes next.
    fn take(&mut self, bytes: &[u8]);

    /// All that was taken, as it came, in pieces.
    fn taken(&self) -> [&[u8]; 3];

    /// The answer, once all was taken; `None` where it has to go the usual way.
    fn answer(&mut self) -> Option<Answering>;
}

/// What was read of a request.
pub(super) type Taken = VecDeque<Result<Frame<Bytes>, hyper::Error>>;

/// A request on its way in.
#[derive(Default)]
pub(super) struct Reading {
    taken: Taken,
    gathered: Option<Gathered>,
}

struct Gathered {
    message: Box<dyn Gathering>,
    length: usize,
    bytes_left: usize,
}

/// What a request turned out to be.
pub(super) enum Read {
    /// One small message.
    Message(Bytes),
    /// One large one, all of which was taken.
    Gathered(Box<dyn Gathering>),
    /// Something for the services.
    Other,
}

impl Reading {
    /// Reads to the end, or until it is known that the request is something else.
    pub(super) fn poll(&mut self, body: &mut Incoming, quick: &dyn Quick, context: &mut Context<'_>) -> Poll<Read> {
        while !body.is_end_stream() {
            let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(context)) else { break };
            if !self.take(frame, quick) {
                return Poll::Ready(Read::Other);
            }
        }
        Poll::Ready(self.end())
    }

    /// What was read, for whoever has to read it again.
    pub(super) fn into_taken(mut self) -> Taken {
        self.give_up();
        self.taken
    }

    /// Whether what came may still be a message by itself.
    fn take(&mut self, frame: Result<Frame<Bytes>, hyper::Error>, quick: &dyn Quick) -> bool {
        let data = frame.as_ref().ok().and_then(Frame::data_ref);
        // Many clients end with a frame that is empty.
        if data.is_some_and(Bytes::is_empty) && (self.gathered.is_some() || !self.taken.is_empty()) {
            return true;
        }
        match (data, &mut self.gathered) {
            (Some(data), Some(gathered)) if data.len() <= gathered.bytes_left => {
                gathered.message.take(data);
                gathered.bytes_left -= data.len();
                return true;
            }
            (Some(data), None) if self.taken.is_empty() => {
                self.gathered = Gathered::begin(data, quick);
                if self.gathered.is_some() {
                    return true;
                }
                let is_whole = whole_message(data).is_some();
                self.taken.push_back(frame);
                return is_whole;
            }
            _ => {}
        }
        self.give_up();
        self.taken.push_back(frame);
        false
    }

    fn end(&mut self) -> Read {
        match &self.gathered {
            Some(gathered) if gathered.bytes_left == 0 => {}
            Some(_) => return Read::Other,
            None => {
                let data = self.taken.front().and_then(|frame| frame.as_ref().ok()?.data_ref());
                return data.and_then(whole_message).map_or(Read::Other, Read::Message);
            }
        }
        self.gathered.take().map_or(Read::Other, |gathered| Read::Gathered(gathered.message))
    }

    /// Makes what was gathered a piece of the request again.
    fn give_up(&mut self) {
        if let Some(gathered) = self.gathered.take() {
            self.taken.push_back(Ok(framed(gathered.length, gathered.message.taken())));
        }
    }
}

impl Gathered {
    fn begin(data: &Bytes, quick: &dyn Quick) -> Option<Self> {
        let (length, beginning) = split(data)?;
        let bytes_left = length.checked_sub(beginning.len()).filter(|&left| left > 0)?;
        Some(Self { message: quick.gather(beginning, length)?, length, bytes_left })
    }
}

/// A message, all of which was taken, as it came.
pub(super) fn framed_whole(message: &dyn Gathering) -> Frame<Bytes> {
    let pieces = message.taken();
    framed(pieces.iter().map(|piece| piece.len()).sum(), pieces)
}

/// The beginning of a message of `length` bytes, as it came.
fn framed(length: usize, pieces: [&[u8]; 3]) -> Frame<Bytes> {
    let taken: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + taken);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    pieces.iter().for_each(|piece| bytes.put_slice(piece));
    Frame::data(bytes.freeze())
}

/// How long a message is that is not compressed, and what there is of it.
fn split(data: &[u8]) -> Option<(usize, &[u8])> {
    let (&[is_compressed, ref length @ ..], message) = data.split_first_chunk::<PREFIX_BYTES>()?;
    (is_compressed == 0).then(|| (u32::from_be_bytes(*length) as usize, message))
}

/// The message in a piece of data that is one.
fn whole_message(data: &Bytes) -> Option<Bytes> {
    split(data).filter(|(length, message)| *length == message.len()).map(|_| data.slice(PREFIX_BYTES..))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gathers every message of eight bytes or more that begins with a 1.
    struct Large;

    struct Row(Vec<u8>);

    impl Quick for Large {
        fn path(&self) -> &'static str {
            ""
        }

        fn answer(&self, _message: Bytes) -> Option<Bytes> {
            None
        }

        fn gather(&self, beginning: &[u8], length: usize) -> Option<Box<dyn Gathering>> {
            let is_large = length >= 8 && beginning.first() == Some(&1);
            is_large.then(|| Box::new(Row(beginning.to_vec())) as Box<dyn Gathering>)
        }
    }

    impl Gathering for Row {
        fn take(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }

        fn taken(&self) -> [&[u8]; 3] {
            [&self.0, &[], &[]]
        }

        fn answer(&mut self) -> Option<Answering> {
            None
        }
    }

    /// What the pieces turn out to be, and what is left for the services.
    fn read(pieces: &[&[u8]]) -> (String, Vec<u8>) {
        let mut reading = Reading::default();
        let data = |piece: &&[u8]| Ok(Frame::data(Bytes::copy_from_slice(piece)));
        let is_alone = pieces.iter().map(data).all(|frame| reading.take(frame, &Large));
        let read = match if is_alone { reading.end() } else { Read::Other } {
            Read::Message(message) => format!("message {message:?}"),
            Read::Gathered(gathered) => format!("gathered {:?}", Bytes::from(gathered.taken().concat())),
            Read::Other => "other".to_owned(),
        };
        let taken = reading.into_taken().into_iter().flat_map(|frame| frame.unwrap().into_data().unwrap());
        (read, taken.collect())
    }

    #[test]
    fn a_small_message_in_one_piece_is_read_and_can_be_read_again() {
        for pieces in [&[&b"\0\0\0\0\x02ab"[..]][..], &[&b"\0\0\0\0\x02ab"[..], &b""[..]][..]] {
            assert_eq!(read(pieces), ("message b\"ab\"".to_owned(), b"\0\0\0\0\x02ab".to_vec()));
        }
        assert_eq!(read(&[&b"\0\0\0\0\0"[..]]).0, "message b\"\"");
    }

    #[test]
    fn a_large_message_is_gathered_from_its_pieces() {
        let pieces = [&b"\0\0\0\0\x08\x01b"[..], &b"cdef"[..], &b"gh"[..], &b""[..]];
        assert_eq!(read(&pieces).0, "gathered b\"\\x01bcdefgh\"");
    }

    #[test]
    fn whatever_else_comes_is_left_to_the_services_as_it_came() {
        let others: [&[&[u8]]; 8] = [
            &[],
            &[b""],
            &[b"\0\0\0"],
            // Compressed, cut short, two messages, in pieces.
            &[b"\x01\0\0\0\x02ab"],
            &[b"\0\0\0\0\x03ab"],
            &[b"\0\0\0\0\x02ab\0\0\0\0\0"],
            &[b"\0\0\0\0\x02ab", b"\0\0\0\0\0"],
            &[b"\0\0\0\0\x02a", b"b"],
        ];
        for pieces in others {
            let (read, taken) = read(pieces);
            // What is read no further after a piece that settles it is read by the services.
            assert!(read == "other" && pieces.concat().starts_with(&taken), "{pieces:?}: {read} {taken:?}");
        }
        let gathered: [&[&[u8]]; 2] = [&[b"\0\0\0\0\x08\x01b", b"cd"], &[b"\0\0\0\0\x08\x01b", b"cdef", b"ghi"]];
        for pieces in gathered {
            assert_eq!(read(pieces), ("other".to_owned(), pieces.concat()));
        }
    }
}
