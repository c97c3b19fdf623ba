//! What bad input gets: each case names the code and the field that it must tell, and the server goes on.

use epochd::config::RawConfig;
use epochd::rpc::pb;
use epochd::rpc::pb::{Activation, ElementType};
use tonic::{Code, Status};

use crate::support::*;

/// One bad request.
struct Case {
    what: &'static str,
    answer: Result<(), Status>,
    code: Code,
    field: &'static str,
}

struct Cases<'a> {
    api: &'a Api,
    cases: Vec<Case>,
}

impl Cases<'_> {
    async fn create(&mut self, what: &'static str, code: Code, field: &'static str, request: pb::CreateModelRequest) {
        let answer = self.api.models.clone().create_model(request).await.map(drop);
        self.cases.push(Case { what, answer, code, field });
    }

    async fn train(&mut self, what: &'static str, code: Code, field: &'static str, request: pb::TrainRequest) {
        let answer = self.api.models.clone().train(request).await.map(drop);
        self.cases.push(Case { what, answer, code, field });
    }

    async fn predict(&mut self, what: &'static str, code: Code, field: &'static str, request: pb::PredictRequest) {
        let answer = self.api.models.clone().predict(request).await.map(drop);
        self.cases.push(Case { what, answer, code, field });
    }

    /// Every case was refused as it should be.
    fn check(self) {
        for Case { what, answer, code, field } in self.cases {
            let status = answer.expect_err(what);
            assert_eq!(status.code(), code, "{what}: {status:?}");
            assert!(!status.message().is_empty(), "{what}");
            let fields = fields(&status);
            assert!(field.is_empty() || fields.iter().any(|it| it == field), "{what}: {fields:?}, not {field}");
        }
    }
}

use Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound};

#[tokio::test(flavor = "multi_thread")]
async fn bad_models_are_refused_by_field() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("taken", 2)).await;
    let mut cases = Cases { api: &api, cases: Vec::new() };
    let one = |units, activation| model("m", 2, &[(units, activation)]);
    let layers = "architecture.layers";
    cases.create("a name that is taken", AlreadyExists, "", xor_model("taken", 2)).await;
    for name in ["Upper", "-x", "x-", "a b", "ü", "x/y"] {
        cases.create("a malformed name", InvalidArgument, "model_id", xor_model(name, 2)).await;
    }
    cases.create("a long name", InvalidArgument, "model_id", xor_model(&"x".repeat(64), 2)).await;
    let nothing = pb::CreateModelRequest { architecture: None, ..one(1, Activation::Sigmoid) };
    cases.create("no architecture", InvalidArgument, "architecture", nothing).await;
    cases.create("no layers", InvalidArgument, layers, model("m", 2, &[])).await;
    let many = vec![(1, Activation::Tanh); 257];
    cases.create("many layers", InvalidArgument, layers, model("m", 2, &many)).await;
    cases
        .create("no inputs", InvalidArgument, "architecture.input_width", model("m", 0, &[(1, Activation::Tanh)]))
        .await;
    for units in [0, -1, 65_537, i32::MAX] {
        let what = "units out of range";
        cases.create(what, InvalidArgument, "architecture.layers[0].units", one(units, Activation::Relu)).await;
    }
    let wide = model("m", 65_537, &[(1, Activation::Tanh)]);
    cases.create("an input over the limit", InvalidArgument, "architecture.input_width", wide).await;
    let overflowing = vec![(65_536, Activation::Relu); 256];
    let overflowing = model("m", 65_536, &overflowing);
    cases.create("widths whose product is far past the bound", InvalidArgument, layers, overflowing).await;
    let mut element = one(1, Activation::Tanh);
    element.architecture.as_mut().unwrap().element_type = 9;
    cases.create("an unknown element type", InvalidArgument, "architecture.element_type", element).await;
    let mut initial = one(1, Activation::Tanh);
    let weights = Some(values(&[f64::NAN, 1.0]));
    initial.initial_weights =
        vec![pb::LayerWeights { layer: Some(0), weights, bias: Some(values(&[0.0])), ..Default::default() }];
    cases.create("NaN in a weight", InvalidArgument, "initial_weights[0].weights", initial).await;
    let huge = model("m", 65_536, &[(65_536, Activation::Relu), (65_536, Activation::Relu)]);
    cases.create("widths whose product is past the bound", InvalidArgument, layers, huge).await;
    let hidden = model("m", 2, &[(2, Activation::Softmax), (2, Activation::Softmax)]);
    cases.create("softmax in a hidden layer", InvalidArgument, "architecture.layers[0].activation", hidden).await;
    cases.create("softmax of one", InvalidArgument, "architecture.layers[0].units", one(1, Activation::Softmax)).await;
    let mut unknown = one(1, Activation::Tanh);
    unknown.architecture.as_mut().unwrap().layers[0].activation = 99;
    let status = api.models.clone().create_model(unknown.clone()).await.unwrap_err();
    assert!(status.message().contains("ACTIVATION_TANH"), "{status:?}");
    cases.create("an unknown activation", InvalidArgument, "architecture.layers[0].activation", unknown).await;
    let mut alpha = one(1, Activation::Elu);
    alpha.architecture.as_mut().unwrap().layers[0].activation_alpha = Some(f64::NAN);
    cases.create("NaN for α", InvalidArgument, "architecture.layers[0].activation_alpha", alpha).await;
    let mut alpha = one(1, Activation::Tanh);
    alpha.architecture.as_mut().unwrap().layers[0].activation_alpha = Some(0.1);
    cases.create("α for tanh", InvalidArgument, "architecture.layers[0].activation_alpha", alpha).await;
    let labels = pb::CreateModelRequest { class_labels: vec!["a".into()], ..one(2, Activation::Softmax) };
    cases.create("one label for two classes", InvalidArgument, "class_labels", labels).await;
    let twice = pb::CreateModelRequest { class_labels: vec!["a".into(); 2], ..one(2, Activation::Softmax) };
    cases.create("a label twice", InvalidArgument, "class_labels[1]", twice).await;
    cases.check();
    // Nothing is half made.
    let models = api.models.clone().list_models(pb::ListModelsRequest::default()).await.unwrap().into_inner().models;
    assert_eq!(models.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_trainings_are_refused_by_field() {
    let server = Server::start();
    let api = server.api().await;
    for (model_id, units, activation) in [
        ("sigmoid", 1, Activation::Sigmoid),
        ("softmax", 3, Activation::Softmax),
        ("sign", 1, Activation::Sign),
        ("identity", 1, Activation::Identity),
    ] {
        api.create(model(model_id, 2, &[(units, activation)])).await;
    }
    api.create(model("flat", 2, &[(2, Activation::Step), (1, Activation::Sigmoid)])).await;
    let mut cases = Cases { api: &api, cases: Vec::new() };
    let good = || truth_table("sigmoid", XOR);
    let with = |change: fn(&mut pb::TrainRequest)| {
        let mut request = truth_table("sigmoid", XOR);
        change(&mut request);
        request
    };
    cases.train("an unknown model", NotFound, "", truth_table("nobody", XOR)).await;
    cases.train("a hidden step", FailedPrecondition, "", truth_table("flat", XOR)).await;
    cases.train("no inputs", InvalidArgument, "inputs", with(|it| it.inputs = None)).await;
    cases.train("no targets", InvalidArgument, "targets", with(|it| it.targets = None)).await;
    cases.train("no rows", InvalidArgument, "inputs", with(|it| it.inputs = Some(values(&[])))).await;
    cases.train("half a row", InvalidArgument, "inputs", with(|it| it.inputs = Some(values(&[1.0; 7])))).await;
    cases.train("fewer targets", InvalidArgument, "targets", with(|it| it.targets = Some(values(&[1.0; 3])))).await;
    for bad in [f64::NAN, f64::INFINITY, 1e300] {
        let mut request = good();
        request.inputs.as_mut().unwrap().values[3] = bad;
        cases.train("a number that is none in float32", InvalidArgument, "inputs", request).await;
    }
    let contradicts = with(|it| it.inputs.as_mut().unwrap().rows = Some(5));
    cases.train("rows that contradict", InvalidArgument, "inputs.rows", contradicts).await;
    let contradicts = with(|it| it.inputs.as_mut().unwrap().columns = Some(3));
    cases.train("columns that contradict", InvalidArgument, "inputs.columns", contradicts).await;
    let both = with(|it| it.inputs.as_mut().unwrap().packed = vec![0; 8].into());
    cases.train("values and packed", InvalidArgument, "inputs", both).await;
    let ragged = with(|it| it.inputs = Some(pb::Matrix { packed: vec![0; 9].into(), ..Default::default() }));
    cases.train("nine packed bytes", InvalidArgument, "inputs.packed", ragged).await;
    let unknown = pb::Matrix { packed: vec![0; 8].into(), packed_type: 9, ..Default::default() };
    let request = pb::TrainRequest { inputs: Some(unknown), ..good() };
    cases.train("an unknown packed type", InvalidArgument, "inputs.packed_type", request).await;
    for rate in [0.0, -1.0, f64::NAN, 1e7] {
        let request = pb::TrainRequest { optimizer: adam(rate), ..good() };
        cases.train("a bad rate", InvalidArgument, "optimizer.adam.learning_rate", request).await;
    }
    let momentum = pb::TrainRequest { optimizer: sgd(0.1, 1.0), ..good() };
    cases.train("momentum of 1", InvalidArgument, "optimizer.sgd.momentum", momentum).await;
    for epochs in [0, -1, 20_000_001] {
        let request = pb::TrainRequest { epochs: Some(epochs), ..good() };
        cases.train("bad epochs", InvalidArgument, "epochs", request).await;
    }
    for batch_size in [0, -5] {
        let request = pb::TrainRequest { batch_size: Some(batch_size), ..good() };
        cases.train("a bad batch size", InvalidArgument, "batch_size", request).await;
    }
    for fraction in [0.0, 1.0, -0.1, f64::NAN] {
        let validation = Some(pb::train_request::Validation::ValidationFraction(fraction));
        let request = pb::TrainRequest { validation, ..good() };
        cases.train("a bad fraction", InvalidArgument, "validation_fraction", request).await;
    }
    let patience = Some(pb::EarlyStopping { patience: Some(0), min_delta: None, ..Default::default() });
    let request = pb::TrainRequest { early_stopping: patience, ..good() };
    cases.train("no patience", InvalidArgument, "early_stopping.patience", request).await;
    let request = pb::TrainRequest { report_every: Some(0), ..good() };
    cases.train("a report never", InvalidArgument, "report_every", request).await;
    let request = pb::TrainRequest { reduction: 7, ..good() };
    cases.train("an unknown reduction", InvalidArgument, "reduction", request).await;
    let request = pb::TrainRequest { request_id: "x".repeat(129), ..good() };
    cases.train("a long request id", InvalidArgument, "request_id", request).await;

    // Losses and targets that do not fit the output.
    use pb::loss::Kind;
    let loss = |kind| Some(pb::Loss { kind: Some(kind) });
    let perceptron = loss(Kind::Perceptron(pb::PerceptronLoss {}));
    let entropy = loss(Kind::SoftmaxCrossEntropy(pb::SoftmaxCrossEntropyLoss::default()));
    let binary = loss(Kind::BinaryCrossEntropy(pb::BinaryCrossEntropyLoss::default()));
    let squared = loss(Kind::SquaredError(pb::SquaredErrorLoss {}));
    let absolute = loss(Kind::AbsoluteError(pb::AbsoluteErrorLoss {}));
    let huber = loss(Kind::Huber(pb::HuberLoss { delta: None }));
    let log_cosh = loss(Kind::LogCosh(pb::LogCoshLoss {}));
    let losses = [&squared, &binary, &entropy, &perceptron, &absolute, &huber, &log_cosh];
    for delta in [0.0, -1.0, f64::NAN] {
        let request = pb::TrainRequest { loss: loss(Kind::Huber(pb::HuberLoss { delta: Some(delta) })), ..good() };
        cases.train("a bad δ", InvalidArgument, "loss.huber.delta", request).await;
    }
    for (model_id, activation, fitting) in [
        ("to-identity", Activation::Identity, [true, false, false, false, true, true, true]),
        ("to-tanh", Activation::Tanh, [true, false, false, false, true, true, true]),
        ("to-relu", Activation::Relu, [true, false, false, false, true, true, false]),
        ("to-elu", Activation::Elu, [true, false, false, false, true, true, false]),
        ("to-softplus", Activation::Softplus, [true, false, false, false, true, true, false]),
        ("to-sigmoid", Activation::Sigmoid, [true, true, false, false, true, true, false]),
        ("to-softmax", Activation::Softmax, [true, false, true, false, false, false, false]),
        ("to-sign", Activation::Sign, [false, false, false, true, false, false, false]),
        ("to-step", Activation::Step, [false, false, false, true, false, false, false]),
    ] {
        let units = if activation == Activation::Softmax { 2 } else { 1 };
        api.create(model(model_id, 2, &[(units, activation)])).await;
        for (loss, fits) in losses.iter().zip(fitting) {
            let request = pb::TrainRequest { loss: (*loss).clone(), epochs: Some(1), ..truth_table(model_id, XOR) };
            if fits {
                api.train(request).await;
            } else {
                cases.train("a loss that does not fit", InvalidArgument, "loss", request).await;
            }
        }
    }
    cases.train("2 for a sigmoid", InvalidArgument, "targets", truth_table("sigmoid", [0.0, 2.0, 1.0, 0.0])).await;
    cases.train("½ for a sign", InvalidArgument, "targets", truth_table("sign", [0.0, 0.5, 1.0, 0.0])).await;
    cases.train("class 3 of 3", InvalidArgument, "targets", truth_table("softmax", [0.0, 1.0, 2.0, 3.0])).await;
    cases.train("class −1", InvalidArgument, "targets", truth_table("softmax", [0.0, -1.0, 2.0, 0.0])).await;
    cases.train("NaN", InvalidArgument, "targets", truth_table("identity", [0.0, f64::NAN, 1.0, 0.0])).await;
    cases.train("−∞", InvalidArgument, "targets", truth_table("identity", [0.0, f64::NEG_INFINITY, 1.0, 0.0])).await;
    cases.train("−1 beside 0", InvalidArgument, "targets", truth_table("sign", [0.0, -1.0, 1.0, 0.0])).await;
    let mut shares = truth_table("softmax", XOR);
    shares.targets = Some(values(&[0.5, 0.6, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]));
    cases.train("a row that does not sum to 1", InvalidArgument, "targets", shares).await;
    let given = |inputs, targets| {
        Some(pb::train_request::Validation::ValidationData(pb::ValidationData {
            inputs,
            targets,
            ..Default::default()
        }))
    };
    let validation = given(Some(values(&[f64::NAN, 1.0])), Some(values(&[1.0])));
    let request = pb::TrainRequest { validation, ..good() };
    cases.train("NaN in validation", InvalidArgument, "validation_data.inputs", request).await;
    let request = pb::TrainRequest { validation: given(None, None), ..good() };
    cases.train("empty validation", InvalidArgument, "validation_data.inputs", request).await;
    let negative = with(|it| it.inputs.as_mut().unwrap().rows = Some(-4));
    cases.train("negative rows", InvalidArgument, "inputs.rows", negative).await;
    let request = pb::TrainRequest { start: 9, ..good() };
    cases.train("an unknown start", InvalidArgument, "start", request).await;
    for (beta2, epsilon, field) in [(1.0, 1e-8, "beta2"), (f64::NAN, 1e-8, "beta2"), (0.9, 0.0, "epsilon")] {
        let adam = pb::Adam { beta2: Some(beta2), epsilon: Some(epsilon), ..Default::default() };
        let optimizer = Some(pb::Optimizer { method: Some(pb::optimizer::Method::Adam(adam)) });
        let request = pb::TrainRequest { optimizer, ..good() };
        let field = if field == "beta2" { "optimizer.adam.beta2" } else { "optimizer.adam.epsilon" };
        cases.train("a bad Adam", InvalidArgument, field, request).await;
    }
    for rate in [0.0, f64::INFINITY] {
        let request = pb::TrainRequest { optimizer: sgd(rate, 0.0), ..good() };
        cases.train("a bad rate", InvalidArgument, "optimizer.sgd.learning_rate", request).await;
    }
    for min_delta in [-1.0, f64::NAN] {
        let early_stopping =
            Some(pb::EarlyStopping { patience: None, min_delta: Some(min_delta), ..Default::default() });
        let request = pb::TrainRequest { early_stopping, ..good() };
        cases.train("a bad delta", InvalidArgument, "early_stopping.min_delta", request).await;
    }
    cases.train("class 1½", InvalidArgument, "targets", truth_table("softmax", [0.0, 1.5, 2.0, 0.0])).await;
    let mut one_hot = truth_table("softmax", XOR);
    one_hot.targets = Some(values(&[1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]));
    cases.train("a row with two classes", InvalidArgument, "targets", one_hot).await;
    cases.check();
    // No job came of any, and the server trains on.
    let of = pb::ListJobsRequest { model_id: "sigmoid".into(), ..Default::default() };
    let jobs = api.jobs.clone().list_jobs(of).await.unwrap().into_inner().jobs;
    assert!(jobs.is_empty(), "{jobs:?}");
    api.train(good()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_questions_are_refused_by_field() {
    let server = Server::start();
    let api = server.api().await;
    api.create(xor_model("xor", 2)).await;
    let mut cases = Cases { api: &api, cases: Vec::new() };
    cases.predict("an unknown model", NotFound, "", predict("nobody", corners())).await;
    cases.predict("a malformed name", InvalidArgument, "model_id", predict("no body", corners())).await;
    let no_inputs = pb::PredictRequest { inputs: None, ..predict("xor", corners()) };
    cases.predict("no inputs", InvalidArgument, "inputs", no_inputs).await;
    cases.predict("half a row", InvalidArgument, "inputs", predict("xor", values(&[1.0; 3]))).await;
    cases.predict("NaN", InvalidArgument, "inputs", predict("xor", values(&[f64::NAN, 0.0]))).await;
    let doubles =
        pb::Matrix { packed: vec![0xFF; 16].into(), packed_type: ElementType::Float64.into(), ..Default::default() };
    cases.predict("packed NaN", InvalidArgument, "inputs", predict("xor", doubles)).await;
    for version in [0, -1] {
        let request = pb::PredictRequest { version: Some(version), ..predict("xor", corners()) };
        cases.predict("a version below 1", InvalidArgument, "version", request).await;
    }
    let later = pb::PredictRequest { version: Some(2), ..predict("xor", corners()) };
    cases.predict("a version to come", NotFound, "", later).await;
    cases.check();
    let nobody = || "nobody".to_owned();
    let mut models = api.models.clone();
    refused(models.get_weights(get_weights("nobody")).await, NotFound, "nobody");
    refused(models.delete_model(pb::DeleteModelRequest { model_id: nobody() }).await, NotFound, "nobody");
    let layers = vec![pb::LayerWeights::default()];
    refused(models.set_weights(pb::SetWeightsRequest { model_id: nobody(), layers }).await, NotFound, "nobody");
    let versions = pb::ListVersionsRequest { model_id: nobody(), ..Default::default() };
    refused(models.list_versions(versions).await, NotFound, "nobody");
    let (inputs, targets) = (Some(corners()), Some(values(&XOR)));
    let gradients = pb::ComputeGradientsRequest { model_id: nobody(), inputs, targets, ..Default::default() };
    refused(models.compute_gradients(gradients).await, NotFound, "nobody");
    let state = pb::ListJobsRequest { state: 99, ..Default::default() };
    assert_eq!(fields(&api.jobs.clone().list_jobs(state).await.unwrap_err()), ["state"]);
    // A token of one list is none of another's.
    api.create(xor_model("zor", 2)).await;
    let first = pb::ListModelsRequest { page_size: 1, ..Default::default() };
    let page_token = models.list_models(first).await.unwrap().into_inner().next_page_token;
    let jobs = pb::ListJobsRequest { page_token: page_token.clone(), ..Default::default() };
    assert_eq!(fields(&api.jobs.clone().list_jobs(jobs).await.unwrap_err()), ["page_token"]);
    let versions = pb::ListVersionsRequest { model_id: "xor".into(), page_token, ..Default::default() };
    assert_eq!(fields(&models.list_versions(versions).await.unwrap_err()), ["page_token"]);
    assert_eq!(api.outputs("xor", corners()).await.len(), 4);
    let token = pb::ListModelsRequest { page_token: "nonsense".into(), ..Default::default() };
    let status = api.models.clone().list_models(token).await.unwrap_err();
    assert_eq!(fields(&status), ["page_token"]);
    let negative = pb::ListModelsRequest { page_size: -1, ..Default::default() };
    let status = api.models.clone().list_models(negative).await.unwrap_err();
    assert_eq!(fields(&status), ["page_size"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_faults_arrive_as_one_answer_with_a_count_of_the_rest() {
    let server = Server::start();
    let api = server.api().await;
    let layers: Vec<(i32, Activation)> = vec![(0, Activation::Relu); 250];
    let mut request = model("BAD", 0, &layers);
    request.architecture.as_mut().unwrap().layers.iter_mut().for_each(|layer| layer.activation_alpha = Some(f64::NAN));
    let status = api.models.clone().create_model(request).await.unwrap_err();
    assert_eq!(status.code(), InvalidArgument);
    let fields = fields(&status);
    assert_eq!((fields.len(), fields.last().unwrap().as_str()), (16, ""));
    assert!(status.message().ends_with("more"), "{}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_message_is_refused_with_the_bound() {
    let server = Server::with(RawConfig { message_bytes_max: 10_000, ephemeral: true, ..Server::raw() });
    let api = server.api().await;
    api.create(xor_model("xor", 2)).await;
    let request = predict("xor", values(&[0.0; 2_000]));
    refused(api.models.clone().predict(request).await, Code::ResourceExhausted, "10000");
    let request = pb::TrainRequest { inputs: Some(values(&[0.0; 2_000])), ..truth_table("xor", XOR) };
    refused(api.models.clone().train(request).await, Code::ResourceExhausted, "--message-bytes-max");
    assert_eq!(api.outputs("xor", corners()).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_are_the_callers_fault() {
    let server = Server::start();
    let api = server.api().await;
    let status = raw_call(&api, b"\x0A\x05xo".to_vec()).await;
    assert_eq!(status.code(), InvalidArgument, "{status:?}");
    assert!(status.message().contains("cannot be read"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_message_that_would_grow_huge_in_memory_is_refused() {
    let server = Server::start();
    let api = server.api().await;
    // A million empty LayerWeights: two bytes each on the wire.
    let status = raw_call(&api, [0x12, 0x00].repeat(1_000_000)).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("100000"), "{status:?}");
}

/// SetWeights with a body of any bytes.
async fn raw_call(api: &Api, body: Vec<u8>) -> Status {
    use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
    #[derive(Clone, Copy)]
    struct Raw;
    impl Codec for Raw {
        type Encode = Vec<u8>;
        type Decode = ();
        type Encoder = Raw;
        type Decoder = Raw;
        fn encoder(&mut self) -> Raw {
            Raw
        }
        fn decoder(&mut self) -> Raw {
            Raw
        }
    }
    impl Encoder for Raw {
        type Item = Vec<u8>;
        type Error = Status;
        fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
            bytes::BufMut::put_slice(buffer, &item);
            Ok(())
        }
    }
    impl Decoder for Raw {
        type Item = ();
        type Error = Status;
        fn decode(&mut self, _buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
            Ok(Some(()))
        }
    }
    let mut grpc = tonic::client::Grpc::new(api.channel.clone());
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/epochd.v1.ModelService/SetWeights");
    grpc.unary(tonic::Request::new(body), path, Raw).await.unwrap_err()
}
