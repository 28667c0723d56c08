struct Params {
    T: u32,             // tokens
    Width: u32,         // values copied of each row
    SourceStride: u32,  // values in a row of x
    SourceOffset: u32,  // first column read
    TargetStride: u32,  // values in a row of y
    TargetOffset: u32,  // first column written
}
