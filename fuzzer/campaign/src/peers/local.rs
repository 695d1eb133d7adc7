//! The hub's connection to the broker of its own campaign. To LibAFL it is another broker's, connected over the loopback
//! device: the broker has a thread for it, which sends here what clients find and brings them what comes from here.

use std::{
    io::Write,
    net::{Ipv4Addr, Shutdown, TcpStream},
    sync::Arc,
    thread::Scope,
    time::Duration,
};

use libafl::Error;
use libafl_bolts::llmp::{BrokerId, TcpRequest, TcpResponse, recv_tcp_msg, send_tcp_msg};

use super::{
    hub::{Hub, Next, Reader},
    wire::{Message, News, WireError, read_frame},
};
use crate::input::PlanInput;

/// The number that the first one to connect to a broker gets, after the thread that waits for those.
const FIRST: BrokerId = BrokerId(1);
/// The longest frame of this process's own broker: memory that a client has for its messages.
const MOST_BYTES: usize = 64 << 20;
/// Plans of others that clients get at a time: whoever runs them does nothing else in between.
const PLANS_AT_A_TIME: usize = 8;
/// How long to wait for news, and how often to look whether clients have run what they got.
const WAIT: Duration = Duration::from_millis(100);

/// Connects to the broker at `port` before any client does: who comes later gets another number than the broker knows it
/// by if two come at once.
///
/// # Errors
///
/// It does not answer as LibAFL's broker does.
pub(crate) fn attach(port: u16) -> Result<TcpStream, Error> {
    let unexpected = |what| Err(Error::illegal_state(format!("the broker does not {what} the hub")));
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let TcpResponse::BrokerConnectHello { .. } = recv_tcp_msg(&mut stream)?.try_into()? else {
        return unexpected("greet");
    };
    send_tcp_msg(&mut stream, &TcpRequest::RemoteBrokerHello { hostname: "hub".to_owned() })?;
    match recv_tcp_msg(&mut stream)?.try_into()? {
        TcpResponse::RemoteBrokerAccepted { broker_id: FIRST } => Ok(stream),
        _ => unexpected("accept"),
    }
}

/// Passes on what the broker says at `stream`, and what `explorers` clients are to run. The two directions are threads of
/// their own: the broker's end does not read while it writes.
///
/// # Errors
///
/// There is no second descriptor for the connection.
pub(super) fn start<'scope>(
    hub: &'scope Arc<Hub>,
    scope: &'scope Scope<'scope, '_>,
    stream: TcpStream,
    explorers: u64,
) -> Result<(), Error> {
    let back = stream.try_clone()?;
    hub.set_attached(true);
    scope.spawn(move || hear(hub, stream));
    scope.spawn(move || {
        if let Err(error) = tell(hub, &back, explorers) {
            tracing::warn!("the broker gets no more plans of others: {}", execution::chain(&error));
            let _ = back.shutdown(Shutdown::Both);
        }
    });
    Ok(())
}

/// Adds what clients find to the log, until the broker's end says that nothing more comes.
fn hear(hub: &Hub, mut stream: TcpStream) {
    loop {
        let message = match read_frame(&mut stream, MOST_BYTES, None) {
            Ok(body) => postcard::from_bytes::<Message>(&body),
            Err(error) => {
                tracing::debug!("the broker's end: {}", execution::chain(&error));
                break;
            }
        };
        match message.map_err(WireError::from).and_then(|message| News::read(&message)) {
            Ok(Some(news)) => hub.add_own(news),
            Ok(None) => {}
            // Clients also tell each other to stop, for one.
            Err(error) => tracing::debug!("not for other hosts: {error}"),
        }
    }
    hub.lose_broker();
    hub.set_attached(false);
}

/// Has clients run the plans of others, as fast as they do.
fn tell(hub: &Hub, mut stream: &TcpStream, explorers: u64) -> Result<(), WireError> {
    let (mut position, mut told, mut turns) = (0, 0, hub.turns());
    loop {
        if told == PLANS_AT_A_TIME && hub.turns() >= turns + explorers {
            (told, turns) = (0, hub.turns());
        }
        let room = PLANS_AT_A_TIME - told;
        match hub.next(Reader::Broker, &mut position, room, WAIT) {
            Next::Frames(frames) => {
                told += frames.len();
                for frame in frames {
                    stream.write_all(&frame)?;
                }
            }
            Next::Nothing => {}
            Next::End => break,
        }
    }
    // The broker's end looks for what it has to send before it reads on: this one wakes it for that, then it sees the end.
    let last = News::Plan(PlanInput(hub.fault_free())).frame()?;
    stream.write_all(&last)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}
