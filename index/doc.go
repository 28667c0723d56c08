// SPDX-License-Identifier: Apache-2.0

// Package index is the image index: the retrieval embeddings of pictures with what is known about each, in one
// append-only file, and exact search over them.
//
// In go rows (an embedding, a path or URL, a caption, a licence, the picture's hash) and queries (an embedding of the
// same size); out come the best rows. It knows no model, decodes no picture and drives no device: a device that scores
// rows itself reads them with [Index.Blocks] and hands its scores to [Index.TopK].
//
// Embeddings are stored divided by their Euclidean norm. The score of a row is the plain dot product with the query;
// the factor exp(logit_scale) of FROMAGe is positive, changes no order, and is left to the caller.
//
// # File format, version 1
//
// All integers are little-endian; all checksums are CRC-32C (Castagnoli). The file is a header and then segments, each
// beginning at a multiple of 64 bytes.
//
//	header (64 bytes)
//	 0  8  magic "fromagei"
//	 8  4  format version, 1
//	12  4  embedding size D, 1 to 65536
//	16  4  row dtype: 1 = f32, 2 = f16, 3 = q8
//	20  4  zero
//	24 32  identity of the model that made the embeddings, chosen by the caller
//	56  4  zero
//	60  4  checksum of bytes 0 to 60
//
//	segment: head (64 bytes), vectors (padded with zeros to 64), metadata (padded with zeros to 64)
//	 0  4  magic "FSEG"
//	 4  4  kind: 1 = rows, 2 = removals
//	 8  4  number of the segment, from 0
//	12  4  number of the first segment of the same append
//	16  8  rows in all segments before this one
//	24  4  count n: rows added, or row numbers listed, at least 1
//	28  4  checksum of the vectors and their padding (removals have none: 0)
//	32  4  checksum of the metadata and its padding
//	36  4  bytes of metadata with its padding
//	40 20  zero
//	60  4  checksum of bytes 0 to 60
//
// The vectors of a segment of rows are n·D values, row after row, at most 8 MiB: one upload to a device, 64-byte
// aligned in the file. A row of q8 is D signed bytes c, the largest magnitude 127, and stands for c/‖c‖: it needs no
// scale, and its embedding has length 1 like any other. Its metadata is n+1 offsets of 4 bytes and then the records; record i is the bytes from offset i
// to offset i+1, counted from the end of the offsets. A record is the lengths of path, caption and licence as unsigned
// varints, one byte that is 1 if a hash follows and else 0, then path, caption, licence and the 32 bytes of the hash.
// The metadata of a segment of removals is n row numbers of 4 bytes. Rows are numbered through all segments; a removed
// row keeps its number until [Compact] rewrites the file.
//
// # What survives what
//
// An append writes its segments with the head of the first one left zero, waits until they are on the disk, and then
// writes that head, 64 bytes within a sector, which reach a disk as a whole. So all rows of an append appear at once, and a file whose writer was killed, or whose disk was full,
// ends in a zero or short head: readers stop there and [Index.Notice] says so, the next writer cuts it off. The same goes
// for a file that was cut short. Anything else that is not as written, down to a bit, is an error that names file,
// segment and bytes, found when the file is opened; nothing is repaired by guessing.
//
// One process writes (an advisory lock on Unix), any number read. A reader keeps the rows it was opened with while the
// file is appended to or compacted.
package index
