//! gRPC messages that are not put together: large ones would be copied on each side. A body of ours takes the place of tonic's,
//! which stays in charge of the calls themselves.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use hyper::HeaderMap;
use hyper::body::{Body as HttpBody, Frame};
use tokio_stream::Stream;
use tonic::Status;
use tonic::body::Body;

use crate::blob::Pieces;
use crate::convert::MAX_MESSAGE_BYTES;

/// What stands before each message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// A body on its way past tonic, in the extensions of a request or a response.
#[derive(Clone)]
pub(super) struct Aside(Arc<Mutex<Option<Body>>>);

impl Aside {
    pub(super) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    pub(super) fn take(&self) -> Option<Body> {
        self.0.lock().expect("nobody panics with the lock held").take()
    }
}

/// Who sends a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Node,
    /// Ends with a status.
    Researcher,
}

/// A body of messages.
pub(super) struct Sending<S> {
    messages: S,
    side: Side,
    /// The rest of the message under way.
    pieces: VecDeque<Bytes>,
    is_over: bool,
}

impl<S: Stream<Item = Result<Pieces, Status>> + Unpin + Send + 'static> Sending<S> {
    pub(super) fn body(messages: S, side: Side) -> Body {
        Body::new(Self { messages, side, pieces: VecDeque::new(), is_over: false })
    }

    fn end(&mut self, status: Status) -> Option<Result<Frame<Bytes>, Status>> {
        self.is_over = true;
        match self.side {
            Side::Node if status.code() == tonic::Code::Ok => None,
            Side::Node => Some(Err(status)),
            Side::Researcher => {
                let mut trailers = HeaderMap::new();
                Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers)))
            }
        }
    }
}

impl<S: Stream<Item = Result<Pieces, Status>> + Unpin + Send + 'static> HttpBody for Sending<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        let message = match ready!(Pin::new(&mut self.messages).poll_next(context)) {
            Some(Ok(message)) => message,
            Some(Err(status)) => return Poll::Ready(self.end(status)),
            None => return Poll::Ready(self.end(Status::new(tonic::Code::Ok, ""))),
        };
        let len = u32::try_from(message.len()).expect("messages are shorter than 4 MiB");
        self.pieces = message.into_pieces().into();
        let first = self.pieces.pop_front().unwrap_or_default();
        let mut start = BytesMut::with_capacity(PREFIX_BYTES + first.len());
        start.put_u8(0);
        start.put_u32(len);
        start.put(first);
        Poll::Ready(Some(Ok(Frame::data(start.freeze()))))
    }
}

/// The messages of a body that comes.
pub(super) struct Receiving {
    body: Body,
    came: Pieces,
    is_over: bool,
}

impl Receiving {
    pub(super) fn new(body: Body) -> Self {
        Self { body, came: Pieces::default(), is_over: false }
    }

    /// The next message; `None` at the end, if it is a good one.
    pub(super) async fn next(&mut self) -> Result<Option<Pieces>, Status> {
        std::future::poll_fn(|context| self.poll_message(context)).await
    }

    /// The next message if it has come already.
    pub(super) async fn next_if_there(&mut self) -> Option<Result<Option<Pieces>, Status>> {
        std::future::poll_fn(|context| match self.poll_message(context) {
            Poll::Ready(next) => Poll::Ready(Some(next)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Pieces>, Status>> {
        loop {
            if let Some(message) = self.split()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.is_over {
                return Poll::Ready(Ok(None));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.came.push(data),
                    Err(frame) => self.end(frame.trailers_ref())?,
                },
                Some(Err(status)) => return Poll::Ready(Err(status)),
                None => self.end(None)?,
            }
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Status> {
        self.is_over = true;
        match trailers.and_then(Status::from_header_map) {
            Some(status) if status.code() != tonic::Code::Ok => Err(status),
            _ if !self.came.is_empty() => Err(Status::unavailable("the stream ended within a message")),
            _ => Ok(()),
        }
    }

    /// Splits the first message off, if all of it is here.
    fn split(&mut self) -> Result<Option<Pieces>, Status> {
        let mut prefix = [0; PREFIX_BYTES];
        if self.came.len() < PREFIX_BYTES {
            return Ok(None);
        }
        prefix.iter_mut().zip(self.came.iter().flatten()).for_each(|(to, from)| *to = *from);
        let [compressed, len @ ..] = prefix;
        let len = u32::from_be_bytes(len) as usize;
        if compressed != 0 {
            return Err(Status::internal("failed to decode: the message is compressed"));
        }
        if len > MAX_MESSAGE_BYTES {
            return Err(Status::out_of_range("the message is too large"));
        }
        if self.came.len() - PREFIX_BYTES < len {
            return Ok(None);
        }
        drop(self.came.split_to(PREFIX_BYTES));
        Ok(Some(self.came.split_to(len)))
    }
}

impl Stream for Receiving {
    type Item = Result<Pieces, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(context).map(Result::transpose)
    }
}
