// SPDX-License-Identifier: Apache-2.0
import java.awt.image.BufferedImage;
import java.io.File;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import com.google.gson.Gson;

import javafx.scene.Node;
import javafx.scene.control.CheckBox;
import javafx.scene.control.ComboBox;
import javafx.scene.control.Label;
import javafx.scene.control.TextField;
import javafx.scene.layout.GridPane;
import javafx.scene.layout.VBox;
import qupath.lib.extension.monailabel.MonaiLabelClient;
import qupath.lib.extension.monailabel.Settings;
import qupath.lib.extension.monailabel.commands.NextSample;
import qupath.lib.extension.monailabel.commands.RunInference;
import qupath.lib.extension.monailabel.commands.RunTraining;
import qupath.lib.extension.monailabel.commands.SubmitLabel;
import qupath.lib.geom.Point2;
import qupath.lib.gui.QuPathGUI;
import qupath.lib.gui.dialogs.Dialogs;
import qupath.lib.images.ImageData;
import qupath.lib.images.servers.ImageServer;
import qupath.lib.objects.PathObject;
import qupath.lib.objects.PathObjects;
import qupath.lib.objects.classes.PathClassFactory;
import qupath.lib.roi.ROIs;

/** Does what a user of QuPath's MONAI Label extension does: the steps are a JSON list, each answered with a JSON line. */
public class Main {
	static class Step {
		String action, name, slide, answer, key, value;
		int[] size = { 0, 0 }, bbox;
		List<Drawn> shapes = new ArrayList<>();
	}

	static class Drawn {
		String name;
		double[][] points;
	}

	private static final Gson GSON = new Gson();

	public static void main(String[] arguments) throws Exception {
		Settings.serverURLProperty().set(arguments[0]);
		for (Step step : GSON.fromJson(arguments[1], Step[].class)) {
			Map<String, Object> answer = new LinkedHashMap<>();
			Dialogs.errors.clear();
			Dialogs.typed.clear();
			Dialogs.edit = node -> { };
			act(step, answer);
			answer.put("errors", new ArrayList<>(Dialogs.errors));
			System.out.println(GSON.toJson(answer));
		}
	}

	private static void act(Step step, Map<String, Object> answer) throws Exception {
		ImageData<BufferedImage> image = step.slide == null ? null
				: new ImageData<>(new ImageServer(new File(step.slide), step.size[0], step.size[1]));
		QuPathGUI qupath = new QuPathGUI(image);
		for (Drawn drawn : step.shapes) {
			add(image, drawn);
		}
		switch (step.action) {
		case "info":
			info(answer);
			break;
		case "exists":
			answer.put("exists", MonaiLabelClient.imageExists(step.name));
			break;
		case "next":
			Dialogs.typed.put("Strategy", step.name);
			new NextSample(qupath).run();
			answer.put("opened", qupath.opened);
			answer.put("bbox", image == null ? null : box(image.getHierarchy().getSelectionModel().getSelectedObject()));
			break;
		case "infer":
			int[] b = step.bbox;
			RunInference.runInference(step.name, MonaiLabelClient.info(), b, 1024, image, step.slide, true);
			answer.put("shapes", shapes(image));
			break;
		case "submit":
			Dialogs.answer = Dialogs.DialogButton.valueOf(step.answer);
			if (step.bbox != null) {
				PathObject selected = PathObjects.createAnnotationObject(
						ROIs.createRectangleROI(step.bbox[0], step.bbox[1], step.bbox[2], step.bbox[3], null));
				image.getHierarchy().addPathObject(selected);
				image.getHierarchy().getSelectionModel().setSelectedObject(selected);
			}
			new SubmitLabel(qupath).run();
			break;
		case "train":
			Dialogs.edit = node -> choose((VBox) node, step);
			new RunTraining().run();
			break;
		default:
			throw new IllegalArgumentException(step.action);
		}
	}

	private static void info(Map<String, Object> answer) throws Exception {
		MonaiLabelClient.ResponseInfo info = MonaiLabelClient.info();
		Map<String, Object> models = new LinkedHashMap<>();
		info.models.forEach((name, model) -> models.put(name, model.labels.labels()));
		Map<String, Object> trainers = new LinkedHashMap<>();
		info.trainers.forEach((name, trainer) -> trainers.put(name, trainer.config));
		answer.put("labels", info.labels.labels());
		answer.put("models", models);
		answer.put("trainers", trainers);
		answer.put("strategies", new ArrayList<>(info.strategies.keySet()));
	}

	private static void add(ImageData<BufferedImage> image, Drawn drawn) {
		List<Point2> points = new ArrayList<>();
		for (double[] point : drawn.points) {
			points.add(new Point2(point[0], point[1]));
		}
		PathObject object = PathObjects.createAnnotationObject(ROIs.createPolygonROI(points, null));
		object.setPathClass(PathClassFactory.getPathClass(drawn.name, 0xc80000));
		image.getHierarchy().addPathObject(object);
	}

	private static List<Object> shapes(ImageData<BufferedImage> image) {
		List<Object> found = new ArrayList<>();
		for (PathObject object : image.getHierarchy().getFlattenedObjectList(null)) {
			List<double[]> points = new ArrayList<>();
			object.getROI().getAllPoints().forEach(p -> points.add(new double[] { p.getX(), p.getY() }));
			found.add(Map.of("name", object.getPathClass().getName(), "points", points));
		}
		return found;
	}

	private static int[] box(PathObject object) {
		return object == null ? null : qupath.lib.extension.monailabel.Utils.getBBOX(object.getROI());
	}

	/** Picks the trainer and types a value beside a setting's name, as in the dialog. */
	@SuppressWarnings("unchecked")
	private static void choose(VBox box, Step step) {
		for (Node node : List.copyOf(box.getChildren())) {
			if (node instanceof ComboBox) {
				ComboBox<String> trainers = (ComboBox<String>) node;
				trainers.getSelectionModel().select(trainers.items.indexOf(step.name));
			}
		}
		GridPane grid = (GridPane) box.getChildren().get(box.getChildren().size() - 1);
		List<Node> cells = grid.getChildren();
		for (int i = 0; i + 1 < cells.size(); i += 2) {
			if (!((Label) cells.get(i)).text.equals(step.key)) {
				continue;
			}
			Node value = cells.get(i + 1);
			if (value instanceof TextField) {
				((TextField) value).setText(step.value);
			} else if (value instanceof CheckBox) {
				((CheckBox) value).setSelected(Boolean.parseBoolean(step.value));
			} else {
				ComboBox<String> all = (ComboBox<String>) value;
				all.getSelectionModel().select(all.items.indexOf(step.value));
			}
		}
	}
}
