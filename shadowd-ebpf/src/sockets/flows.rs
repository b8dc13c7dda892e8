//! The table of flows: sums that only grow.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use shadowd_common::sockets::{
    BUCKETS, Counters, FLOWS_MAX, FlowKey, FlowNews, FlowValue, Sums, UDP, Volume, loss,
};

use crate::context::{BPF_NOEXIST, lost, one_more, plus};

#[map]
pub static FLOWS: HashMap<FlowKey, FlowValue> = HashMap::with_max_entries(FLOWS_MAX, 0);

const NO_VOLUME: Volume = Volume {
    rx_bytes: 0,
    tx_bytes: 0,
    rx_packets: 0,
    tx_packets: 0,
    retransmits: 0,
};

const NO_SUMS: Sums = Sums {
    opened: 0,
    adopted: 0,
    closed: 0,
    failed: 0,
    resets: 0,
    moved: 0,
    rtt_count: 0,
    rtt_sum_ns: 0,
    connect_count: 0,
    connect_sum_ns: 0,
    responses: 0,
};

/// A flow on which nothing happened; in memory that cannot be written, so it takes no stack.
static NOTHING: FlowValue = FlowValue {
    sums: NO_SUMS,
    done: NO_VOLUME,
    before: NO_VOLUME,
    live: NO_VOLUME,
    live_tick: 0,
    changed: 0,
    told: NO_SUMS,
    told_volume: NO_VOLUME,
    response: [0; BUCKETS],
    told_response: [0; BUCKETS],
};

/// Times below 2^(FIRST_BUCKET + 1) ns are in bucket 0 (`Histogram` of user space).
const FIRST_BUCKET: u32 = 7;

/// The flow, made if there is room for it.
#[inline(always)]
pub fn flow(key: &FlowKey) -> Option<*mut FlowValue> {
    if let Some(value) = FLOWS.get_ptr_mut(key) {
        return Some(value);
    }
    // Another CPU may be first: then its entry is used.
    let _ = FLOWS.insert(key, &NOTHING, BPF_NOEXIST);
    FLOWS.get_ptr_mut(key)
}

/// The flow, or `happenings` and `bytes` are counted as lost.
#[inline(always)]
pub fn flow_or_lost(key: &FlowKey, happenings: u64, bytes: u64) -> Option<*mut FlowValue> {
    let value = flow(key);
    if value.is_none() {
        let what = if key.protocol == UDP {
            loss::DATAGRAMS
        } else {
            loss::FLOWS
        };
        lost(what, happenings);
        lost(loss::FLOW_BYTES, bytes);
    }
    value
}

/// What a connection moved since `base`.
#[inline(always)]
pub fn since(now: &Counters, base: &Counters) -> Volume {
    Volume {
        rx_bytes: now.rx_bytes.saturating_sub(base.rx_bytes),
        tx_bytes: now.tx_bytes.saturating_sub(base.tx_bytes),
        rx_packets: u64::from(now.rx_packets.wrapping_sub(base.rx_packets)),
        tx_packets: u64::from(now.tx_packets.wrapping_sub(base.tx_packets)),
        retransmits: u64::from(now.retransmits.wrapping_sub(base.retransmits)),
    }
}

/// Adds a volume for good.
///
/// # Safety
///
/// `value` is a live map value.
#[inline(always)]
pub unsafe fn credit(value: *mut FlowValue, more: &Volume) {
    // SAFETY: the caller vouches for the pointer; the fields are aligned and only added to.
    unsafe {
        plus(&raw mut (*value).done.rx_bytes, more.rx_bytes);
        plus(&raw mut (*value).done.tx_bytes, more.tx_bytes);
        plus(&raw mut (*value).done.rx_packets, more.rx_packets);
        plus(&raw mut (*value).done.tx_packets, more.tx_packets);
        plus(&raw mut (*value).done.retransmits, more.retransmits);
    }
}

/// Counts a round trip, if one was measured.
///
/// # Safety
///
/// `value` is a live map value.
#[inline(always)]
pub unsafe fn credit_rtt(value: *mut FlowValue, rtt_us: u32) {
    if rtt_us != 0 {
        // SAFETY: the caller vouches for the pointer; the fields are aligned and only added to.
        unsafe {
            plus(&raw mut (*value).sums.rtt_count, 1);
            plus(&raw mut (*value).sums.rtt_sum_ns, u64::from(rtt_us) * 1_000);
        }
    }
}

/// Counts an answer.
///
/// # Safety
///
/// `value` is a live map value.
#[inline(always)]
pub unsafe fn credit_response(value: *mut FlowValue, nanos: u64) {
    let bucket = bucket(nanos) & (BUCKETS - 1);
    // SAFETY: the caller vouches for the pointer, and the index is within the array.
    unsafe {
        plus(&raw mut (*value).sums.responses, 1);
        one_more((&raw mut (*value).response).cast::<u32>().add(bucket));
    }
}

/// The bucket of a time: the position of its highest bit, by halves.
#[inline(always)]
fn bucket(nanos: u64) -> usize {
    let mut rest = nanos >> FIRST_BUCKET;
    let mut log = 0;
    if rest >> 32 != 0 {
        return BUCKETS - 1;
    }
    if rest >> 16 != 0 {
        rest >>= 16;
        log += 16;
    }
    if rest >> 8 != 0 {
        rest >>= 8;
        log += 8;
    }
    if rest >> 4 != 0 {
        rest >>= 4;
        log += 4;
    }
    if rest >> 2 != 0 {
        rest >>= 2;
        log += 2;
    }
    log + usize::from(rest >> 1 != 0)
}

/// What came on a flow since user space was told.
///
/// # Safety
///
/// `value` is a live map value.
#[inline(always)]
pub unsafe fn news(key: &FlowKey, value: *const FlowValue, tick: u64, to: &mut FlowNews) -> bool {
    // SAFETY: the caller vouches for the pointer. Each counter is read once.
    unsafe {
        let (now, told) = (&raw const (*value).sums, &raw const (*value).told);
        macro_rules! since_told {
            ($($field:ident),*) => {
                $(
                    let latest = core::ptr::read_volatile(&raw const (*now).$field);
                    to.sums.$field = latest.wrapping_sub((*told).$field);
                )*
            };
        }
        since_told!(
            opened,
            adopted,
            closed,
            failed,
            resets,
            moved,
            rtt_count,
            rtt_sum_ns,
            connect_count,
            connect_sum_ns,
            responses
        );
        to.open = ((*told).opened + to.sums.opened)
            .wrapping_add((*told).adopted + to.sums.adopted)
            .wrapping_add((*told).moved.wrapping_add(to.sums.moved))
            .wrapping_sub((*told).closed + to.sums.closed) as i64;
        let told = &raw const (*value).told_volume;
        let looked = (*value).live_tick == tick;
        macro_rules! volume {
            ($($field:ident),*) => {
                $(
                    let now = if looked {
                        (*value).before.$field + (*value).live.$field
                    } else {
                        core::ptr::read_volatile(&raw const (*value).done.$field)
                    };
                    let past = (*told).$field;
                    to.volume.$field = if now > past { now - past } else { 0 };
                )*
            };
        }
        volume!(rx_bytes, tx_bytes, rx_packets, tx_packets, retransmits);
        if to.sums.responses != 0 {
            for index in 0..BUCKETS {
                let now = core::ptr::read_volatile(&raw const (*value).response[index]);
                to.response[index] = now.wrapping_sub((*value).told_response[index]);
            }
        }
    }
    to.key = *key;
    let (sums, volume) = (&to.sums, &to.volume);
    let happened = sums.opened | sums.adopted | sums.closed | sums.failed | sums.resets;
    let timed = sums.moved | sums.rtt_count | sums.connect_count | sums.responses;
    let moved = volume.rx_bytes | volume.tx_bytes | volume.rx_packets | volume.tx_packets;
    (happened | timed | moved | volume.retransmits) != 0
}

/// Notes what user space was told.
///
/// # Safety
///
/// `value` is a live map value, and one report runs at a time.
#[inline(always)]
pub unsafe fn told(value: *mut FlowValue, tick: u64, news: &FlowNews) {
    // SAFETY: the caller vouches for the pointer; only the report writes these fields.
    unsafe {
        (*value).changed = tick;
        let told = &raw mut (*value).told;
        macro_rules! add {
            ($to:ident, $from:expr, $($field:ident),*) => {
                $((*$to).$field = (*$to).$field.wrapping_add($from.$field);)*
            };
        }
        add!(
            told,
            news.sums,
            opened,
            adopted,
            closed,
            failed,
            resets,
            moved,
            rtt_count,
            rtt_sum_ns,
            connect_count,
            connect_sum_ns,
            responses
        );
        let volume = &raw mut (*value).told_volume;
        add!(
            volume,
            news.volume,
            rx_bytes,
            tx_bytes,
            rx_packets,
            tx_packets,
            retransmits
        );
        if news.sums.responses != 0 {
            for index in 0..BUCKETS {
                (*value).told_response[index] =
                    (*value).told_response[index].wrapping_add(news.response[index]);
            }
        }
    }
}

pub const NO_NEWS: FlowNews = FlowNews {
    key: FlowKey {
        cgroup: 0,
        tgid: 0,
        service: 0,
        direction: 0,
        protocol: 0,
        local: [0; 4],
        remote: [0; 4],
    },
    sums: NO_SUMS,
    volume: NO_VOLUME,
    open: 0,
    response: [0; BUCKETS],
};
