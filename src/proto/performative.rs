//! Control frames through the AMQP library: open, begin, attach, detach, end, close and the SASL
//! frames. Their bytes are checked by [`wire::check`](super::wire::check) before the library sees them.

use bytes::{BufMut, BytesMut};
use fe2o3_amqp_types::definitions as fe;
use fe2o3_amqp_types::messaging as fem;
use fe2o3_amqp_types::performatives as fep;
use fe2o3_amqp_types::transaction::{Coordinator, TxnCapability};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_amqp::primitives::{Array, OrderedMap};

use super::frame::{self, FrameKind};
use super::wire::{DecodeError, FRAME_VALUES_MAX, Reader, check};
use super::{
    AttachTarget, DistributionMode, Durability, ErrorCondition, ExpiryPolicy, Outcome, PeerRole,
    ReceiverSettleMode, RemoteOpen, SenderSettleMode, Settings, Source, Symbol, Target, Value,
};

/// Decodes a control frame that was found to be of this type.
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    check(body, FRAME_VALUES_MAX)?;
    serde_amqp::from_slice(body)
        .map_err(|_| DecodeError("a field of a control frame is missing or of a wrong type"))
}

/// The library could not write a value that we were given; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EncodeError;

/// Writes one control frame. All or nothing.
pub(crate) fn put<T: Serialize>(
    out: &mut BytesMut,
    kind: FrameKind,
    channel: u16,
    performative: &T,
) -> Result<(), EncodeError> {
    let start = frame::begin(out, kind, channel);
    let mut serializer = serde_amqp::ser::Serializer::new(out.writer());
    if performative.serialize(&mut serializer).is_err() {
        out.truncate(start);
        return Err(EncodeError);
    }
    frame::finish(out, start);
    Ok(())
}

/// The first three fields of an attach: enough to refuse one whose rest we cannot understand.
pub(crate) fn attach_identity(body: &[u8]) -> Result<(String, u32, PeerRole), DecodeError> {
    let mut reader = Reader::new(body);
    reader.descriptor()?;
    let mut fields = reader.list()?;
    let name = fields
        .string()?
        .ok_or(DecodeError("an attach has no name"))?;
    let handle = fields
        .uint()?
        .ok_or(DecodeError("an attach has no handle"))?;
    let receiver = fields
        .boolean()?
        .ok_or(DecodeError("an attach has no role"))?;
    let role = if receiver {
        PeerRole::Receiver
    } else {
        PeerRole::Sender
    };
    Ok((String::from(name), handle, role))
}

type FeFields = OrderedMap<Symbol, Value>;

fn fields_in(fields: Option<FeFields>) -> Vec<(Symbol, Value)> {
    fields
        .map(|fields| fields.into_iter().collect())
        .unwrap_or_default()
}

fn fields_out(fields: &[(Symbol, Value)]) -> Option<FeFields> {
    (!fields.is_empty()).then(|| fields.iter().cloned().collect())
}

fn symbols_in(symbols: Option<Array<Symbol>>) -> Vec<Symbol> {
    symbols.map(Array::into_inner).unwrap_or_default()
}

fn symbols_out(symbols: &[Symbol]) -> Option<Array<Symbol>> {
    (!symbols.is_empty()).then(|| Array::from(symbols.to_vec()))
}

pub(crate) fn open_in(open: fep::Open) -> RemoteOpen {
    RemoteOpen {
        container_id: open.container_id,
        hostname: open.hostname,
        max_frame_size: open.max_frame_size.0,
        channel_max: open.channel_max.0,
        idle_timeout_ms: open.idle_time_out.filter(|&timeout_ms| timeout_ms > 0),
        offered_capabilities: symbols_in(open.offered_capabilities),
        desired_capabilities: symbols_in(open.desired_capabilities),
        properties: fields_in(open.properties),
    }
}

pub(crate) fn open_out(settings: &Settings) -> fep::Open {
    fep::Open {
        container_id: settings.container_id.clone(),
        hostname: settings.hostname.clone(),
        max_frame_size: fep::MaxFrameSize(settings.max_frame_size),
        channel_max: fep::ChannelMax(settings.channel_max),
        // Half of what we wait for, as part 2.4.5 recommends.
        idle_time_out: settings
            .idle_timeout_ms
            .map(|timeout_ms| (timeout_ms / 2).max(1)),
        outgoing_locales: None,
        incoming_locales: None,
        offered_capabilities: symbols_out(&settings.offered_capabilities),
        desired_capabilities: symbols_out(&settings.desired_capabilities),
        properties: fields_out(&settings.properties),
    }
}

pub(crate) fn error_in(error: fe::Error) -> ErrorCondition {
    let condition = match &error.condition {
        fe::ErrorCondition::AmqpError(error) => Symbol::from(error),
        fe::ErrorCondition::ConnectionError(error) => Symbol::from(error),
        fe::ErrorCondition::SessionError(error) => Symbol::from(error),
        fe::ErrorCondition::LinkError(error) => Symbol::from(error),
        fe::ErrorCondition::TransactionError(error) => Symbol::from(error),
        fe::ErrorCondition::Custom(symbol) => symbol.clone(),
    };
    ErrorCondition {
        condition: condition.into_inner().into(),
        description: error.description,
        info: fields_in(error.info.map(|info| *info)),
    }
}

pub(crate) fn error_out(error: &ErrorCondition) -> fe::Error {
    fe::Error {
        condition: fe::ErrorCondition::Custom(Symbol::from(error.condition.as_ref())),
        description: error.description.clone(),
        info: fields_out(&error.info).map(Box::new),
    }
}

pub(crate) fn source_in(source: fem::Source) -> Source {
    Source {
        address: source.address,
        durable: durability_in(&source.durable),
        expiry_policy: expiry_in(&source.expiry_policy),
        timeout_s: source.timeout,
        dynamic: source.dynamic,
        dynamic_node_properties: fields_in(source.dynamic_node_properties),
        distribution_mode: source.distribution_mode.map(|mode| match mode {
            fem::DistributionMode::Move => DistributionMode::Move,
            fem::DistributionMode::Copy => DistributionMode::Copy,
        }),
        filter: fields_in(source.filter),
        default_outcome: source.default_outcome.map(outcome_in),
        outcomes: symbols_in(source.outcomes),
        capabilities: symbols_in(source.capabilities),
    }
}

pub(crate) fn source_out(source: &Source) -> fem::Source {
    fem::Source {
        address: source.address.clone(),
        durable: durability_out(source.durable),
        expiry_policy: expiry_out(source.expiry_policy),
        timeout: source.timeout_s,
        dynamic: source.dynamic,
        dynamic_node_properties: fields_out(&source.dynamic_node_properties),
        distribution_mode: source.distribution_mode.map(|mode| match mode {
            DistributionMode::Move => fem::DistributionMode::Move,
            DistributionMode::Copy => fem::DistributionMode::Copy,
        }),
        filter: fields_out(&source.filter),
        default_outcome: source.default_outcome.as_ref().and_then(outcome_out),
        outcomes: symbols_out(&source.outcomes),
        capabilities: symbols_out(&source.capabilities),
    }
}

pub(crate) fn target_in(target: fem::TargetArchetype) -> AttachTarget {
    match target {
        fem::TargetArchetype::Target(target) => AttachTarget::Node(Target {
            address: target.address,
            durable: durability_in(&target.durable),
            expiry_policy: expiry_in(&target.expiry_policy),
            timeout_s: target.timeout,
            dynamic: target.dynamic,
            dynamic_node_properties: fields_in(target.dynamic_node_properties),
            capabilities: symbols_in(target.capabilities),
        }),
        fem::TargetArchetype::Coordinator(coordinator) => AttachTarget::Coordinator(
            coordinator
                .capabilities
                .map(|capabilities| capabilities.iter().map(Symbol::from).collect())
                .unwrap_or_default(),
        ),
    }
}

pub(crate) fn target_out(target: &AttachTarget) -> fem::TargetArchetype {
    match target {
        AttachTarget::Node(target) => fem::TargetArchetype::Target(fem::Target {
            address: target.address.clone(),
            durable: durability_out(target.durable),
            expiry_policy: expiry_out(target.expiry_policy),
            timeout: target.timeout_s,
            dynamic: target.dynamic,
            dynamic_node_properties: fields_out(&target.dynamic_node_properties),
            capabilities: symbols_out(&target.capabilities),
        }),
        AttachTarget::Coordinator(capabilities) => {
            // The library knows the capabilities of the specification only; others are left out.
            let known: Vec<TxnCapability> = capabilities
                .iter()
                .filter_map(|symbol| TxnCapability::try_from(symbol.as_str()).ok())
                .collect();
            fem::TargetArchetype::Coordinator(Coordinator {
                capabilities: (!known.is_empty()).then(|| Array::from(known)),
            })
        }
    }
}

fn durability_in(durable: &fem::TerminusDurability) -> Durability {
    match durable {
        fem::TerminusDurability::None => Durability::None,
        fem::TerminusDurability::Configuration => Durability::Configuration,
        fem::TerminusDurability::UnsettledState => Durability::UnsettledState,
    }
}

fn durability_out(durable: Durability) -> fem::TerminusDurability {
    match durable {
        Durability::None => fem::TerminusDurability::None,
        Durability::Configuration => fem::TerminusDurability::Configuration,
        Durability::UnsettledState => fem::TerminusDurability::UnsettledState,
    }
}

fn expiry_in(policy: &fem::TerminusExpiryPolicy) -> ExpiryPolicy {
    match policy {
        fem::TerminusExpiryPolicy::LinkDetach => ExpiryPolicy::LinkDetach,
        fem::TerminusExpiryPolicy::SessionEnd => ExpiryPolicy::SessionEnd,
        fem::TerminusExpiryPolicy::ConnectionClose => ExpiryPolicy::ConnectionClose,
        fem::TerminusExpiryPolicy::Never => ExpiryPolicy::Never,
    }
}

fn expiry_out(policy: ExpiryPolicy) -> fem::TerminusExpiryPolicy {
    match policy {
        ExpiryPolicy::LinkDetach => fem::TerminusExpiryPolicy::LinkDetach,
        ExpiryPolicy::SessionEnd => fem::TerminusExpiryPolicy::SessionEnd,
        ExpiryPolicy::ConnectionClose => fem::TerminusExpiryPolicy::ConnectionClose,
        ExpiryPolicy::Never => fem::TerminusExpiryPolicy::Never,
    }
}

fn outcome_in(outcome: fem::Outcome) -> Outcome {
    match outcome {
        fem::Outcome::Accepted(_) => Outcome::Accepted,
        fem::Outcome::Rejected(rejected) => Outcome::Rejected(rejected.error.map(error_in)),
        fem::Outcome::Released(_) => Outcome::Released,
        fem::Outcome::Modified(modified) => Outcome::Modified {
            delivery_failed: modified.delivery_failed.unwrap_or(false),
            undeliverable_here: modified.undeliverable_here.unwrap_or(false),
        },
        fem::Outcome::Declared(declared) => Outcome::Declared {
            txn_id: declared.txn_id.into_vec().into(),
        },
    }
}

/// A default outcome; transactional ones are none.
fn outcome_out(outcome: &Outcome) -> Option<fem::Outcome> {
    Some(match outcome {
        Outcome::Accepted => fem::Outcome::Accepted(fem::Accepted {}),
        Outcome::Rejected(error) => fem::Outcome::Rejected(fem::Rejected {
            error: error.as_ref().map(error_out),
        }),
        Outcome::Released => fem::Outcome::Released(fem::Released {}),
        Outcome::Modified {
            delivery_failed,
            undeliverable_here,
        } => fem::Outcome::Modified(fem::Modified {
            delivery_failed: Some(*delivery_failed),
            undeliverable_here: Some(*undeliverable_here),
            message_annotations: None,
        }),
        Outcome::Declared { .. } | Outcome::Transactional { .. } => return None,
    })
}

pub(crate) fn snd_mode_in(mode: &fe::SenderSettleMode) -> SenderSettleMode {
    match mode {
        fe::SenderSettleMode::Unsettled => SenderSettleMode::Unsettled,
        fe::SenderSettleMode::Settled => SenderSettleMode::Settled,
        fe::SenderSettleMode::Mixed => SenderSettleMode::Mixed,
    }
}

pub(crate) fn snd_mode_out(mode: SenderSettleMode) -> fe::SenderSettleMode {
    match mode {
        SenderSettleMode::Unsettled => fe::SenderSettleMode::Unsettled,
        SenderSettleMode::Settled => fe::SenderSettleMode::Settled,
        SenderSettleMode::Mixed => fe::SenderSettleMode::Mixed,
    }
}

pub(crate) fn rcv_mode_in(mode: &fe::ReceiverSettleMode) -> ReceiverSettleMode {
    match mode {
        fe::ReceiverSettleMode::First => ReceiverSettleMode::First,
        fe::ReceiverSettleMode::Second => ReceiverSettleMode::Second,
    }
}

pub(crate) fn rcv_mode_out(mode: ReceiverSettleMode) -> fe::ReceiverSettleMode {
    match mode {
        ReceiverSettleMode::First => fe::ReceiverSettleMode::First,
        ReceiverSettleMode::Second => fe::ReceiverSettleMode::Second,
    }
}

/// What both ends of an attach say; `role` is ours.
pub(crate) struct AttachOut<'a> {
    pub(crate) name: &'a str,
    pub(crate) handle: u32,
    pub(crate) peer_role: PeerRole,
    pub(crate) snd_settle_mode: SenderSettleMode,
    pub(crate) rcv_settle_mode: ReceiverSettleMode,
    pub(crate) source: Option<&'a Source>,
    pub(crate) target: Option<&'a AttachTarget>,
    pub(crate) max_message_bytes: u64,
    pub(crate) offered_capabilities: &'a [Symbol],
    pub(crate) desired_capabilities: &'a [Symbol],
    pub(crate) properties: &'a [(Symbol, Value)],
}

pub(crate) fn attach_out(attach: &AttachOut<'_>) -> fep::Attach {
    let we_send = attach.peer_role == PeerRole::Receiver;
    fep::Attach {
        name: String::from(attach.name),
        handle: fe::Handle(attach.handle),
        role: if we_send {
            fe::Role::Sender
        } else {
            fe::Role::Receiver
        },
        snd_settle_mode: snd_mode_out(attach.snd_settle_mode),
        rcv_settle_mode: rcv_mode_out(attach.rcv_settle_mode),
        source: attach.source.map(|source| Box::new(source_out(source))),
        target: attach.target.map(|target| Box::new(target_out(target))),
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: we_send.then_some(0),
        max_message_size: (!we_send && attach.max_message_bytes > 0)
            .then_some(attach.max_message_bytes),
        offered_capabilities: symbols_out(attach.offered_capabilities),
        desired_capabilities: symbols_out(attach.desired_capabilities),
        properties: fields_out(attach.properties),
    }
}

/// What an attach of the peer says, without the identity that we give the link.
pub(crate) struct AttachIn {
    pub(crate) name: String,
    pub(crate) handle: u32,
    pub(crate) peer_role: PeerRole,
    pub(crate) snd_settle_mode: SenderSettleMode,
    pub(crate) rcv_settle_mode: ReceiverSettleMode,
    pub(crate) source: Option<Source>,
    pub(crate) target: Option<AttachTarget>,
    pub(crate) initial_delivery_count: u32,
    pub(crate) max_message_bytes: Option<u64>,
    pub(crate) offered_capabilities: Vec<Symbol>,
    pub(crate) desired_capabilities: Vec<Symbol>,
    pub(crate) properties: Vec<(Symbol, Value)>,
}

pub(crate) fn attach_in(attach: fep::Attach) -> AttachIn {
    AttachIn {
        name: attach.name,
        handle: attach.handle.0,
        peer_role: match attach.role {
            fe::Role::Sender => PeerRole::Sender,
            fe::Role::Receiver => PeerRole::Receiver,
        },
        snd_settle_mode: snd_mode_in(&attach.snd_settle_mode),
        rcv_settle_mode: rcv_mode_in(&attach.rcv_settle_mode),
        source: attach.source.map(|source| source_in(*source)),
        target: attach.target.map(|target| target_in(*target)),
        initial_delivery_count: attach.initial_delivery_count.unwrap_or(0),
        max_message_bytes: attach.max_message_size.filter(|&bytes| bytes > 0),
        offered_capabilities: symbols_in(attach.offered_capabilities),
        desired_capabilities: symbols_in(attach.desired_capabilities),
        properties: fields_in(attach.properties),
    }
}
