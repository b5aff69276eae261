// Package hugepage is memory for payload: mapped outside of the Go heap, in
// huge pages where the kernel has them.
//
// A relay's time goes into copying payload, and with pages of 4 KiB much of that
// into looking up where they are, more so in a virtual machine: huge pages made
// copies from the link a fifth faster. Most kernels give them only to who asks
// (MADV_HUGEPAGE; transparent_hugepage/enabled says "madvise").
//
// A [Slabs] hands out chunks of 64 KiB from slabs of one huge page each. A slab
// without a chunk in use goes back to the kernel at once but for one, which
// stays to be used again until [Slabs.Trim]. Memory that is only mapped costs
// nothing: a page exists from its first use.
//
// Nothing here is safe for concurrent use.
package hugepage
