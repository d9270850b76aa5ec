"""Which ops a SavedModel may hold before anything loads it.

A SavedModel is a program. TensorFlow's own ops can read and write files, call
Python, open sockets and keep mutable tables, so a graph is read, not run, and
every op in it must stand on the list below: ops that are missing from it are
refused, whatever they do. The exporter checks what it has written by the same
list, so nothing is exported that the server would refuse.

The list names stock TensorFlow ops, which TF Serving links, and the ops of
tf_text 2.20, which TF Serving links too. Deliberately absent: ops that read or
write files (`ReadFile`, `PrintV2`, `ImmutableConst`, the tf.data sources, ...),
`PyFunc` and its kin, mutable hash tables, queues, collectives, `RemoteCall`,
`Abort`, `XlaCustomCallV2`, `XlaHostCompute`. Checkpoint ops are allowed only where
a SavedModel restores itself, never in what a request can reach.

TensorFlow's protocol buffers are imported inside the function, so importing this
module is free.
"""

import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

_FLOW = """
Assert Case Const ControlTrigger EnsureShape Enter Exit FakeParam
Identity IdentityN If LoopCond Merge NextIteration NoOp PartitionedCall Placeholder
PlaceholderWithDefault PreventGradient StatefulPartitionedCall StatelessCase
StatelessIf StatelessWhile StopGradient Switch ToBool While
"""
_ARITHMETIC = """
Abs AccumulateNV2 Acos Acosh Add AddN AddV2 Angle ApproximateEqual Asin Asinh Atan
Atan2 Atanh BesselI0 BesselI0e BesselI1 BesselI1e BesselJ0 BesselJ1 BesselK0
BesselK0e BesselK1 BesselK1e BesselY0 BesselY1 Betainc BitwiseAnd BitwiseOr
BitwiseXor Cast Ceil CheckNumerics CheckNumericsV2 ClipByValue Complex ComplexAbs
Conj Cos Cosh Cross Cumprod Cumsum CumulativeLogsumexp Dawsn Digamma Div DivNoNan
Equal Erf Erfc Erfinv Exp Expint Expm1 Floor FloorDiv FloorMod FresnelCos FresnelSin
Greater GreaterEqual Igamma IgammaGradA Igammac Imag Inv Invert IsFinite IsInf IsNan
LeftShift Less LessEqual Lgamma LinSpace Log Log1p LogicalAnd LogicalNot LogicalOr
Maximum Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual Polygamma
PopulationCount Pow Real RealDiv Reciprocal RightShift Rint Round Rsqrt Sigmoid Sign
Sin Sinh Spence Sqrt Square SquaredDifference Sub Tan Tanh TruncateDiv TruncateMod
Xdivy Xlog1py Xlogy Zeta
"""
_REDUCTIONS = """
All Any ArgMax ArgMin Bincount Bucketize DenseBincount EuclideanNorm HistogramFixedWidth
InTopK InTopKV2 Max Mean Min NthElement Prod SegmentMax SegmentMaxV2 SegmentMean
SegmentMin SegmentMinV2 SegmentProd SegmentProdV2 SegmentSum SegmentSumV2 Sum TopK
TopKV2 ApproxTopK UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd
UnsortedSegmentSum
"""
_SHAPES = """
BatchToSpace BatchToSpaceND Bitcast BroadcastArgs BroadcastGradientArgs BroadcastTo
Concat ConcatOffset ConcatV2 DeepCopy DepthToSpace Diag DiagPart DynamicPartition
DynamicStitch Empty ExpandDims Fill Gather GatherNd GatherV2 InplaceAdd InplaceSub
InplaceUpdate InvertPermutation ListDiff LowerBound MatrixBandPart MatrixDiag
MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3
MatrixSetDiag MatrixSetDiagV2 MatrixSetDiagV3 MirrorPad OneHot OnesLike Pack Pad
PadV2 ParallelConcat ParallelDynamicStitch Range Rank Reshape Reverse
ReverseSequence ReverseV2 Roll ScatterNd ScatterNdNonAliasingAdd Select SelectV2
Shape ShapeN Size Slice Snapshot SpaceToBatch SpaceToBatchND SpaceToDepth Split
SplitV Squeeze StridedSlice TensorScatterAdd TensorScatterMax TensorScatterMin
TensorScatterSub TensorScatterUpdate TensorStridedSliceUpdate Tile Transpose
ConjugateTranspose Unique UniqueV2 UniqueWithCounts UniqueWithCountsV2 Unpack
UnravelIndex UpperBound Where ZerosLike
"""
_LINEAR_ALGEBRA = """
BandedTriangularSolve BatchMatMul BatchMatMulV2 BatchMatMulV3 Cholesky Einsum
LogMatrixDeterminant MatMul MatrixDeterminant MatrixExponential MatrixInverse
MatrixSolve MatrixSolveLs MatrixSquareRoot MatrixTriangularSolve Qr SelfAdjointEigV2
Svd TridiagonalMatMul TridiagonalSolve FFT FFT2D FFT3D FFTND IFFT IFFT2D IFFT3D
IFFTND IRFFT IRFFT2D IRFFT3D IRFFTND RFFT RFFT2D RFFT3D RFFTND
"""
_NEURAL = """
AvgPool AvgPool3D BiasAdd BiasAddV1 BlockLSTM BlockLSTMV2 CTCBeamSearchDecoder
CTCGreedyDecoder Conv Conv2D Conv2DBackpropInput Conv3D Conv3DBackpropInputV2
CropAndResize CudnnRNN CudnnRNNCanonicalToParams CudnnRNNCanonicalToParamsV2
CudnnRNNParamsSize CudnnRNNV2 CudnnRNNV3 DepthwiseConv2dNative Dilation2D Elu
FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 GRUBlockCell L2Loss LRN
LSTMBlockCell LeakyRelu LogSoftmax MaxPool MaxPool3D MaxPoolV2 MaxPoolWithArgmax
Relu Relu6 ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor Selu
Softmax SoftmaxCrossEntropyWithLogits Softplus Softsign
SparseSoftmaxCrossEntropyWithLogits
"""
_QUANTISED = """
Dequantize FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantizeV2 QuantizeAndDequantizeV3
QuantizeAndDequantizeV4 QuantizeV2 QuantizedMatMul QuantizedMatMulWithBias
RequantizationRange Requantize UniformDequantize UniformQuantize UniformQuantizedAdd
UniformQuantizedClipByValue UniformQuantizedDot UniformQuantizedDotHybrid
UniformRequantize
"""
# A SavedModel keeps the traced gradients of its custom-gradient functions.
_GRADIENTS = """
AvgPoolGrad BiasAddGrad Conv2DBackpropFilter EluGrad FusedBatchNormGradV3 InvGrad
LRNGrad LeakyReluGrad MaxPoolGrad MirrorPadGrad ReciprocalGrad Relu6Grad ReluGrad
RsqrtGrad SeluGrad SigmoidGrad SoftplusGrad SoftsignGrad SqrtGrad StridedSliceGrad
TanhGrad TileGrad
"""
_STRINGS = """
AsString DecodeBase64 DecodePaddedRaw DecodeRaw EditDistance EncodeBase64 Fingerprint
ReduceJoin RegexFullMatch RegexReplace StaticRegexFullMatch StaticRegexReplace
StringFormat StringJoin StringLength StringLower StringNGrams StringSplit
StringSplitV2 StringStrip StringToHashBucket StringToHashBucketFast
StringToHashBucketStrong StringToNumber StringUpper Substr UnicodeDecode
UnicodeDecodeWithOffsets UnicodeEncode UnicodeScript UnicodeTranscode
UnsortedSegmentJoin ParseExample ParseExampleV2
"""
_RAGGED_AND_SPARSE = """
RaggedBincount RaggedCountSparseOutput RaggedCross RaggedFillEmptyRows RaggedGather
RaggedRange RaggedTensorFromVariant RaggedTensorToSparse RaggedTensorToTensor
RaggedTensorToVariant SparseAdd SparseBincount SparseConcat SparseCross SparseCrossV2
SparseDenseCwiseAdd SparseDenseCwiseMul SparseFillEmptyRows SparseMatMul
SparseReduceMax SparseReduceSum SparseReorder SparseReshape SparseSegmentMean
SparseSegmentSqrtN SparseSegmentSum SparseSlice SparseSoftmax SparseSplit
SparseTensorDenseAdd SparseTensorDenseMatMul SparseToDense DenseToDenseSetOperation
"""
_LISTS = """
EmptyTensorList TensorArrayCloseV3 TensorArrayConcatV3 TensorArrayGatherV3
TensorArrayReadV3 TensorArrayScatterV3 TensorArraySizeV3 TensorArraySplitV3
TensorArrayV3 TensorArrayWriteV3 TensorListConcat TensorListConcatLists
TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather
TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack
TensorListPushBackBatch TensorListReserve TensorListResize TensorListScatter
TensorListScatterIntoExistingList TensorListScatterV2 TensorListSetItem
TensorListSplit TensorListStack
"""
_RANDOM = """
Multinomial ParameterizedTruncatedNormal RandomGamma RandomIndexShuffle
RandomPoissonV2 RandomShuffle RandomStandardNormal RandomUniform RandomUniformInt
RngReadAndSkip RngSkip StatefulStandardNormalV2 StatefulTruncatedNormal
StatefulUniform StatefulUniformFullInt StatefulUniformInt StatelessMultinomial
StatelessParameterizedTruncatedNormal StatelessRandomBinomial StatelessRandomGammaV2
StatelessRandomGammaV3 StatelessRandomGetAlg StatelessRandomGetKeyCounter
StatelessRandomGetKeyCounterAlg StatelessRandomNormal StatelessRandomNormalV2
StatelessRandomPoisson StatelessRandomUniform StatelessRandomUniformFullInt
StatelessRandomUniformFullIntV2 StatelessRandomUniformInt StatelessRandomUniformIntV2
StatelessRandomUniformV2 StatelessShuffle StatelessTruncatedNormal
StatelessTruncatedNormalV2 TruncatedNormal
"""
# Tables that are filled once, from tensors, and never change.
_STATE = """
AssignAddVariableOp AssignSubVariableOp AssignVariableOp DestroyResourceOp
DisableCopyOnRead HashTableV2 InitializeTableV2 LookupTableExportV2
LookupTableFindV2 LookupTableImportV2 LookupTableSizeV2 ReadVariableOp
ResourceGather ResourceGatherNd ResourceScatterAdd ResourceScatterNdAdd
ResourceScatterNdUpdate ResourceScatterUpdate ResourceStridedSliceAssign VarHandleOp
VarIsInitializedOp VariableShape
"""
_TF_TEXT = """
CaseFoldUTF8 ConstrainedSequence FastBertNormalize FastWordpieceTokenizeWithOffsets
FindSourceOffsets MaxSpanningTree NormalizeUTF8 NormalizeUTF8WithOffsetsMap
PhraseTokenize RegexSplitWithOffsets SentenceFragments SentenceFragmentsV2
SentencepieceDetokenizeOp SentencepieceIdToStringOp SentencepieceOp
SentencepieceStringToIdOp SentencepieceTokenizeOp SentencepieceTokenizeWithOffsetsOp
SentencepieceVocabSizeOp SplitMergeTokenizeWithOffsets TFText>BoiseTagsToOffsets
TFText>ByteSplitByOffsets TFText>ByteSplitWithOffsets
TFText>FastSentencepieceDetokenize TFText>FastSentencepieceTokenize
TFText>FastWordpieceDetokenize TFText>NgramsStringJoin TFText>OffsetsToBoiseTags
TFText>PhraseDetokenize TFText>RoundRobinGenerateMasks TFText>RoundRobinTrim
TFText>Utf8Binarize TFText>WhitespaceTokenizeWithOffsetsV2 TokenizerFromLogits
UnicodeScriptTokenizeWithOffsets WhitespaceTokenizeWithOffsets
WordpieceTokenizeWithOffsets
"""
_XLA = """
XlaBroadcastHelper XlaConv XlaConvV2 XlaDequantize XlaDot XlaDotV2 XlaDynamicSlice
XlaDynamicUpdateSlice XlaEinsum XlaGather XlaIf XlaKeyValueSort
XlaOptimizationBarrier XlaPad XlaReduce XlaReducePrecision XlaReduceWindow
XlaRemoveDynamicDimensionSize XlaRngBitGenerator XlaScatter XlaSelectAndScatter
XlaSelfAdjointEig XlaSetBound XlaSetDynamicDimensionSize XlaSharding XlaSort XlaSvd
XlaVariadicReduce XlaVariadicReduceV2 XlaVariadicSort XlaWhile
"""

TF_TEXT_OPS = frozenset(_TF_TEXT.split())
STOCK_OPS = frozenset(
    " ".join(
        (
            *(_FLOW, _ARITHMETIC, _REDUCTIONS, _SHAPES, _LINEAR_ALGEBRA, _NEURAL),
            *(_QUANTISED, _GRADIENTS, _STRINGS, _RAGGED_AND_SPARSE, _LISTS, _RANDOM),
            _STATE,
        )
    ).split()
)
XLA_OPS = frozenset(_XLA.split())
# They touch files, so they may stand only in what saves and restores the variables.
CHECKPOINT_OPS = frozenset(
    ("MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename")
)


class ForbiddenGraphError(ValueError):
    """A SavedModel holds an op, or a structure, that is not on the list."""


def check_graph(
    saved_model_folder: str | os.PathLike[str], allow_xla: bool = False
) -> frozenset[str]:
    """Checks every node of a SavedModel's graph and functions against the list.

    Nothing is loaded or run: `saved_model.pb` is parsed and read.

    Args:
        saved_model_folder: The folder that holds `saved_model.pb`.
        allow_xla: Whether XLA's ops and functions that must be compiled pass too.
            Stock TF Serving refuses them unless it was started with
            `--xla_cpu_compilation_enabled`.

    Returns:
        The names of all ops that the SavedModel uses.

    Raises:
        ForbiddenGraphError: An op is not on the list, a function is called that
            the file does not hold, or a checkpoint op can be reached by a request.
            The message names the op, the node and the function.
        ValueError: The folder holds no readable `saved_model.pb`.
    """
    saved_model = _read_saved_model(pathlib.Path(saved_model_folder))
    allowed = STOCK_OPS | TF_TEXT_OPS | CHECKPOINT_OPS
    if allow_xla:
        allowed |= XLA_OPS
    used: set[str] = set()
    for meta_graph in saved_model.meta_graphs:
        functions = {f.signature.name: f for f in meta_graph.graph_def.library.function}
        for where, node in _all_nodes(meta_graph.graph_def):
            _check_node(node, where, allowed, functions, allow_xla)
            used.add(node.op)
        for name, function in functions.items():
            if not (allow_xla or not function.attr["_XlaMustCompile"].b):
                _refuse_compilation(f"function {name!r}")
        _check_checkpoint_ops(meta_graph, functions)
    return frozenset(used)


def _read_saved_model(folder: pathlib.Path) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    # TensorFlow would read these in place of the file that is checked here.
    for name in ("saved_model.cpb", "saved_model.pbtxt"):
        if os.path.lexists(folder / name):
            raise ForbiddenGraphError(
                "A SavedModel is read from `saved_model.pb` alone, so that what is "
                f"checked is what is loaded. Received: {folder / name}. Remove it."
            )
    try:
        return saved_model_pb2.SavedModel.FromString(
            (folder / "saved_model.pb").read_bytes()
        )
    except (OSError, DecodeError) as error:
        raise ValueError(
            f"A SavedModel needs a readable `saved_model.pb`. Received: {folder} "
            f"({error})."
        ) from error


def _all_nodes(graph_def: Any) -> Iterator[tuple[str, Any]]:
    """Yields each node with the words that say where it stands."""
    for node in graph_def.node:
        yield "the graph", node
    for function in graph_def.library.function:
        for node in function.node_def:
            yield f"function {function.signature.name!r}", node


def _check_node(
    node: Any, where: str, allowed: frozenset[str], functions: Any, allow_xla: bool
) -> None:
    if node.op not in allowed:
        kind = "an XLA op, and XLA is off" if node.op in XLA_OPS else "not allowed"
        raise ForbiddenGraphError(
            f"Op {node.op!r} is {kind}: only TensorFlow's own ops that keep to "
            f"their tensors, and those of tf_text, are served. Received: node "
            f"{node.name!r} in {where}. Export the model without it."
        )
    if node.attr["_XlaMustCompile"].b and not allow_xla:
        _refuse_compilation(f"node {node.name!r} in {where}")
    for callee in _callees([node]):
        if callee not in functions:
            raise ForbiddenGraphError(
                "A SavedModel must hold every function that it calls. Received: node "
                f"{node.name!r} in {where}, which calls {callee!r}."
            )


def _refuse_compilation(what: str) -> None:
    raise ForbiddenGraphError(
        "A function with `jit_compile=True` needs a server that compiles with XLA. "
        f"Received: {what}. Export without "
        "jit, or start the server with --xla_cpu_compilation_enabled."
    )


def _callees(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        for value in node.attr.values():
            if value.HasField("func"):
                yield value.func.name
            for function in value.list.func:
                yield function.name


def _check_checkpoint_ops(meta_graph: Any, functions: Any) -> None:
    """Refuses checkpoint ops that a request, or the set-up of the model, can reach.

    They name files by a tensor: a signature that reached `SaveV2` could write
    anywhere. The one place for them is the saver, which the loader alone calls.
    """
    entries = set(meta_graph.object_graph_def.concrete_functions)
    top_nodes = _nodes_behind_signatures(meta_graph)
    reached = set(entries)
    waiting = [*entries, *_callees(top_nodes)]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        if name in functions:
            callees = set(_callees(functions[name].node_def))
            waiting.extend(callees - reached)
    for where, nodes in (
        ("the graph", top_nodes),
        *((f"function {n!r}", functions[n].node_def) for n in reached & set(functions)),
    ):
        for node in nodes:
            if node.op in CHECKPOINT_OPS:
                raise ForbiddenGraphError(
                    f"Op {node.op!r} touches files, so only the saver may use it, "
                    f"never what a request can reach. Received: node {node.name!r} "
                    f"in {where}."
                )


def _nodes_behind_signatures(meta_graph: Any) -> list[Any]:
    """Returns the graph's nodes that signatures, and the set-up, depend on."""
    by_name = {node.name: node for node in meta_graph.graph_def.node}
    waiting = [
        info.name
        for signature in meta_graph.signature_def.values()
        for info in (*signature.inputs.values(), *signature.outputs.values())
    ]
    for collection in meta_graph.collection_def.values():
        waiting.extend(collection.node_list.value)
    reached: dict[str, Any] = {}
    while waiting:
        name = waiting.pop().removeprefix("^").partition(":")[0]
        if name in by_name and name not in reached:
            reached[name] = by_name[name]
            waiting.extend(by_name[name].input)
    return list(reached.values())
