#![no_std]
//! Types that the kernel side and the daemon share.
