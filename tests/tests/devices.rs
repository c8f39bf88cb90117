//! stub
use burn::tensor::*;
#[test]
fn stub() {
    let t = std::time::Instant::now();
    let d = ray_zerocopy::device("wgpu");
    println!("{d:?} {:?}", t.elapsed());
    println!("{:?}", ray_zerocopy::device("wgpu:7"));
    let d = d.unwrap();
    println!("{:?}", d.settings());
    for t in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::I32, DType::I16, DType::I8, DType::U64, DType::U32, DType::U16, DType::U8, DType::Bool(BoolStore::Native), DType::Bool(BoolStore::U8), DType::Bool(BoolStore::U32)] {
        println!("{t:?} {}", d.supports_dtype(t));
    }
    let t = std::time::Instant::now();
    let x = Tensor::<2>::ones([4, 256], &d);
    let y = Tensor::<2>::ones([256, 256], &d);
    println!("{:?} {:?}", x.matmul(y).sum().into_scalar::<f32>(), t.elapsed());
    let x = Tensor::<1>::from_data(TensorData::new(vec![1f64, 2.0], [2]), (&d, DType::F64));
    println!("{:?}", (x * 2.0).try_into_data());
    let x = Tensor::<1, Int>::from_data(TensorData::new(vec![1i64 << 40, 2], [2]), (&d, DType::I64));
    println!("{:?}", (x * 2).try_into_data());
}
