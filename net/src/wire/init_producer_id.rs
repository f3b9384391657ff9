//! InitProducerId (key 22): the identity of an idempotent or transactional producer.
//!
//! Versions 0–5. 1: as 0. 2: flexible. 3: the producer may ask to go on with its epoch (KIP-360).
//! 4: `PRODUCER_FENCED` is known. 5: `TRANSACTION_ABORTABLE` is known (KIP-890). Left out: 6,
//! two-phase commit (KIP-939), which Kafka 4.4 marks unstable and does not advertise.

use super::ErrorCode;
use super::message::message;

message! {
    /// Who wants an identity.
    pub struct InitProducerIdRequest<'a>:
        request 22 -> InitProducerIdResponse, versions 0..=5, flexible 2;
    {
        /// Of a transactional producer; null for one that is only idempotent.
        transactional_id: Option<&'a str>,
        /// Milliseconds after which an open transaction is aborted.
        transaction_timeout_ms: i32,
        /// The identity it has; -1 if none.
        producer_id: i64 [3..] = -1,
        /// The epoch it has; -1 if none.
        producer_epoch: i16 [3..] = -1,
    }

    /// The identity.
    pub struct InitProducerIdResponse: response 22, versions 0..=5, flexible 2;
    {
        /// Milliseconds for which the client is throttled.
        throttle_time_ms: i32,
        /// Why there is none, if so.
        error_code: ErrorCode,
        /// The identity; -1 with an error.
        producer_id: i64 = -1,
        /// Its epoch.
        producer_epoch: i16,
    }
}
